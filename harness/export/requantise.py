"""`python -m harness.export.requantise IN OUT`: quantise a GGUF file to Q4_K_M with llama.cpp, in a child process."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    import llama_cpp

    given, made = arguments
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    return int(llama_cpp.llama_model_quantize(given.encode(), made.encode(), options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
