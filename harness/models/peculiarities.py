"""Peculiarities of architectures that users must know before they train: attention without SDPA, and experts.

Importing transformers takes seconds, so its source text is read instead; the engine asks the classes themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""Names for the number of experts in config.json."""


def peculiarities(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each peculiarity of the architecture that a config.json describes."""
    kind = config.get("model_type")
    if isinstance(kind, str) and not has_sdpa(kind):
        yield (
            f"Attention: eager, because transformers has no scaled dot-product attention (SDPA) for {kind}. It takes "
            "more memory and time."
        )
    if experts := experts_of(config):
        yield (
            f"The model has {experts} experts in a layer. Their weights are not quantised, since bitsandbytes cannot "
            "quantise them, and they get no adapters: target_modules must name other matrices."
        )


def has_sdpa(kind: str) -> bool:
    """Whether the installed transformers has SDPA for models of this type, or does not know the type."""
    source = _source(kind)
    return not source.is_file() or "_supports_sdpa = True" in source.read_text(encoding="utf-8")


def _source(kind: str) -> Path:
    if not re.fullmatch(r"[\w-]+", kind):  # config.json may come from anyone
        return Path()
    found = find_spec("transformers")
    root = Path(found.origin).parent if found and found.origin else Path()
    module = kind.replace("-", "_").removesuffix("_text")
    return root / "models" / module / f"modeling_{module}.py"


def experts_of(config: Mapping[str, Any]) -> int:
    """Return the number of experts in a layer; 0 if the model is no mixture of experts."""
    counts = (config.get(name) for name in _EXPERTS)
    return next((count for count in counts if isinstance(count, int) and count > 1), 0)
