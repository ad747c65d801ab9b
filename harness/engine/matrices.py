"""The matrices of the base's linear modules in compute precision, and products with them.

bitsandbytes takes three kernels to dequantise a 4-bit matrix. Ours is one, and is used where it gives the same bits.
Importing this Python module imports torch, so import it only inside functions.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit

Dequantise = Callable[[torch.Tensor, Any], torch.Tensor]
"""Maps a packed 4-bit matrix and its `QuantState` to the matrix, (out, in)."""
_SAME: dict[tuple[Any, ...], bool] = {}
"""Whether the kernel gives bitsandbytes' bits, by kind of matrix."""


def has_matrix(module: torch.nn.Module) -> bool:
    """Whether a module's output is the product of its input and a matrix that `matrix` knows, plus a bias."""
    return type(module) in (torch.nn.Linear, Linear4bit)


def matrix(module: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return the matrix of a module, (out, in); a 4-bit one is dequantised unless `dequantised` has done so."""
    found: torch.Tensor | None = vars(module).get("plain_weight")
    if found is None and isinstance(module, Linear4bit):
        found = _dequantised(module.weight, module.weight.quant_state)
    return (module.weight if found is None else found).to(dtype)


def product(module: Any, x: torch.Tensor) -> torch.Tensor:
    """Return a linear module's output for `x`, (rows, tokens, in).

    bitsandbytes can multiply few tokens with a 4-bit matrix without dequantising it; for many, this is faster.
    """
    if not x.is_cuda or type(module) is not Linear4bit or x.shape[:-1].numel() <= _few(x.device):
        found: torch.Tensor = module(x)
        return found
    bias = None if module.bias is None else module.bias.to(x.dtype)
    return torch.nn.functional.linear(x, matrix(module, x.dtype), bias)


def _few(device: torch.device) -> int:
    """Return for how many tokens bitsandbytes may multiply directly; with a T4's slow memory, it does for more."""
    return 32 if torch.cuda.get_device_capability(device) >= (8, 0) else 128


def _dequantised(packed: torch.Tensor, state: Any) -> torch.Tensor:
    if packed.is_cuda and state.nested:
        whole = state.shape.numel() % state.blocksize == 0
        kind = (state.quant_type, state.dtype, state.blocksize, state.state2.blocksize, whole)
        if kind not in _SAME:
            _SAME[kind] = whole and gives_same_bits(_by_kernel, packed, state)
        if _SAME[kind]:
            return _by_kernel(packed, state)
    found: torch.Tensor = dequantize_4bit(packed, state)
    return found


def _by_kernel(packed: torch.Tensor, state: Any) -> torch.Tensor:
    from harness.engine import kernels

    return kernels.dequantised(packed, state)


def gives_same_bits(own: Dequantise, packed: torch.Tensor, state: Any) -> bool:
    """Whether a function dequantises this matrix as bitsandbytes does; False if it fails."""
    try:
        return own(packed, state).equal(dequantize_4bit(packed, state))
    except Exception:  # noqa: BLE001 - without Triton, or with a GPU that cannot do it, bitsandbytes can
        traceback.print_exc()
        return False
