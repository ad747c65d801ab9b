"""A pass over a model that leaves much memory free has more tokens."""

from __future__ import annotations

import pytest

from harness.core.device_profiles import T4
from harness.core.units import DeviceKind
from harness.hardware.estimate.passes import PASS_TOKENS, SharedPass


@pytest.mark.parametrize(
    ("sizes", "base", "times"),
    [((4096, 11008, 32), 3.6, 2), ((1536, 8960, 28), 1.2, 4), ((2048, 5632, 22), 0.8, 4), ((4096, 11008, 32), 14.0, 1)],
    ids=["Llama-2-7b", "Qwen2.5-1.5B", "TinyLlama", "a base that fills the memory"],
)
def test_tokens_of_a_pass_on_a_t4(sizes: tuple[int, int, int], base: float, times: int) -> None:
    """On a T4, a pass over a small model has twice as many tokens as one over Llama-2-7b, where more would not fit."""
    one = SharedPass(DeviceKind.CUDA, 2, *sizes, free=T4.memory_cap - base * 2**30)
    assert one.tokens == times * PASS_TOKENS[DeviceKind.CUDA]
