"""Script that quantises a GGUF file to Q4_K_M with llama.cpp: `python -m harness.export.requantise INPUT OUTPUT`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Quantise, and return llama.cpp's error code (0: success)."""
    import llama_cpp

    source, result = arguments
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    return int(llama_cpp.llama_model_quantize(source.encode(), result.encode(), options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
