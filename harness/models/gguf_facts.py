"""What the conversion of a GGUF file is told of the file's header.

Notebooks contain this module, so it imports little.
"""

from __future__ import annotations

from typing import Any

from harness.models.gguf import Header
from harness.models.gguf_rope import rope_scaling


def facts(header: Header) -> dict[str, Any]:
    """Return the arguments of `harness.engine.gguf_conversion.convert`, which come from the header."""
    return {
        "dtype": header.dtype,
        "weights": header.weights,
        "special_tokens": header.special_tokens,
        "end_tokens": header.end_tokens,
        "chat_template": header.chat_template,
        "space_prefix": header.space_prefix,
        "rope_scaling": rope_scaling(header) or {},
    }
