"""The Triton kernels compute what transformers' modules and bitsandbytes compute.

They run on a GPU. Without one, they run in Triton's interpreter if Triton is installed and TRITON_INTERPRET is 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, apply_rotary_pos_emb

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no CUDA device", allow_module_level=True)

from harness.engine import kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCES = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float16: {"rtol": 2e-3, "atol": 2e-3}}


def check(dtype: torch.dtype, own: Callable[..., Any], reference: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
    """Check that both functions have equal values and gradients for random inputs of these shapes."""
    torch.manual_seed(0)
    given = [torch.randn(shape, dtype=dtype, device=DEVICE) for shape in shapes]
    results = []
    for function in (own, reference):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        value = function(*leaves)
        torch.manual_seed(1)
        value.backward(torch.randn(value.shape, dtype=dtype, device=DEVICE))
        results.append([value, *(leaf.grad for leaf in leaves)])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, **TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("size", [64, 96])
def test_the_norm_equals_llamas(dtype: torch.dtype, size: int) -> None:
    """The RMS norm and its gradient equal those of Llama's module, for sizes that are no power of two as well."""
    norm = LlamaRMSNorm(size, eps=1e-5).to(DEVICE, dtype)
    norm.weight.data.uniform_(0.5, 1.5)
    norm.requires_grad_(False)
    check(dtype, lambda x: kernels.rms_norm(x, norm.weight, 1e-5), norm, (2, 3, size))


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_gate_equals_llamas(dtype: torch.dtype) -> None:
    """The gated activation and its gradients equal those of Llama's MLP."""
    act = LlamaMLP(LlamaConfig(hidden_size=32, intermediate_size=8)).act_fn
    check(dtype, kernels.swiglu, lambda gate, up: act(gate) * up, (2, 3, 700), (2, 3, 700))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("rows", "heads"), [(1, 3), (2, 3), (2, 11)])
def test_the_rotation_equals_llamas(dtype: torch.dtype, rows: int, heads: int) -> None:
    """The rotation and its gradient equal Llama's, whether or not the heads fill all programs."""
    torch.manual_seed(2)
    cosine, sine = (torch.randn(rows, 5, 16, dtype=dtype, device=DEVICE) for _ in range(2))

    def llamas(x: torch.Tensor) -> torch.Tensor:
        rotated: torch.Tensor = apply_rotary_pos_emb(x.transpose(1, 2), x.transpose(1, 2), cosine, sine)[0]
        return rotated

    check(dtype, lambda x: kernels.rotate(x.transpose(1, 2), cosine, sine), llamas, (2, 5, heads, 16))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", [(2, 64), (130, 192)])
def test_matrices_have_bitsandbytes_bits(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """A matrix is dequantised to the same bits, whether or not its blocks fill all programs."""
    torch.manual_seed(3)
    given = torch.randn(shape, device=DEVICE).to(dtype)
    packed, state = quantize_4bit(given, blocksize=64, compress_statistics=True, quant_type="nf4")
    assert kernels.dequantised(packed, state).equal(dequantize_4bit(packed, state))
