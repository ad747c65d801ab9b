"""A kernel of ours dequantises matrices only where it gives bitsandbytes' bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Linear4bit

from harness.engine.matrices import gives_same_bits, product


def another_bit(packed: torch.Tensor, state: Any) -> torch.Tensor:
    found: torch.Tensor = dequantize_4bit(packed, state)
    found[-1, -1] = torch.nextafter(found[-1, -1], torch.tensor(9.0))
    return found


def fails(packed: torch.Tensor, state: Any) -> torch.Tensor:
    raise RuntimeError("this GPU is too old")


@pytest.mark.parametrize(("own", "same"), [(dequantize_4bit, True), (another_bit, False), (fails, False)])
def test_only_the_same_bits_count(own: Any, same: bool) -> None:
    """A function that fails, or changes the last bit of one weight, does not dequantise as bitsandbytes does."""
    packed, state = quantize_4bit(torch.randn(64, 64), blocksize=64, compress_statistics=True, quant_type="nf4")
    assert gives_same_bits(own, packed, state) is same


@pytest.mark.gpu
@pytest.mark.usefixtures("t4")
@pytest.mark.parametrize("tokens", [8, 160])
def test_products_equal_bitsandbytes(tokens: int) -> None:
    """With few and with many tokens, a 4-bit layer's output is that of bitsandbytes up to rounding."""
    torch.manual_seed(0)
    layer = Linear4bit(256, 512, bias=True, compute_dtype=torch.float16, quant_type="nf4").cuda()
    x = torch.randn(tokens, 1, 256, dtype=torch.float16, device="cuda")
    with torch.inference_mode():
        torch.testing.assert_close(product(layer, x), layer(x), rtol=1e-2, atol=1e-2)
