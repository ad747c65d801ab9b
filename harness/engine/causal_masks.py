"""Lets a model use causal attention without a mask where no row holds several sequences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_FIND = "find_packed_sequence_indices"
"""The function with which transformers finds out from positions whether a row holds several sequences."""


@contextlib.contextmanager
def one_sequence_per_row() -> Iterator[None]:
    """Until the context ends, let models take for granted that each row holds one sequence.

    Otherwise transformers reads the positions in every forward pass, for which Python waits until the GPU has computed
    everything before. And while a CUDA graph is captured, it cannot read them, and uses a mask that attention computes
    in full.
    """
    from transformers import masking_utils

    found = vars(masking_utils).get(_FIND)
    if found is not None:
        setattr(masking_utils, _FIND, lambda *_, **__: None)
    try:
        yield
    finally:
        if found is not None:
            setattr(masking_utils, _FIND, found)
