"""Triton kernels for RMS norm, SwiGLU and rotary positions, and for dequantising 4-bit matrices.

PyTorch runs each of them as up to ten kernels, and each of these reads and writes whole activations. The kernels use no
tensor cores and no bf16, so GPUs of compute capability 7.5 run them. Importing this module needs Triton.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _norm_rows(x, weight, out, size, epsilon, block: tl.constexpr):
    """Divide each row of `x`, (rows, size), by its root mean square, and multiply it by `weight`, (size,)."""
    column = tl.arange(0, block)
    inside = column < size
    at = tl.program_id(0).to(tl.int64) * size + column
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, 0) / size + epsilon)
    # Rounded before the weight is applied, as transformers does.
    normed = (value * scale).to(out.dtype.element_ty)
    tl.store(out + at, normed * tl.load(weight + column, mask=inside, other=0.0), mask=inside)


@triton.jit
def _norm_rows_backward(gradient, x, weight, out, size, epsilon, block: tl.constexpr):
    """Write the gradient of the input of `_norm_rows` to `out`, (rows, size)."""
    column = tl.arange(0, block)
    inside = column < size
    at = tl.program_id(0).to(tl.int64) * size + column
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, 0) / size + epsilon)
    normed = value * scale
    of_normed = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    of_normed *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(of_normed * normed, 0) / size
    tl.store(out + at, ((of_normed - normed * mean) * scale).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gate(gate, up, out, size, block: tl.constexpr):
    """Write silu(gate) * up, each (size,), to `out`."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < size
    value = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    opened = (value * tl.sigmoid(value)).to(out.dtype.element_ty)
    tl.store(out + at, opened * tl.load(up + at, mask=inside, other=0.0), mask=inside)


@triton.jit
def _gate_backward(gradient, gate, up, of_gate, of_up, size, block: tl.constexpr):
    """Write the gradients of the inputs of `_gate` to `of_gate` and `of_up`, each (size,)."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < size
    given = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(value)
    slope = share * (1 + value * (1 - share))
    tl.store(of_gate + at, (given * factor * slope).to(of_gate.dtype.element_ty), mask=inside)
    tl.store(of_up + at, (given * value * share).to(of_up.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tokens", "heads"])
def _rotate(
    x, cosine, sine, out, tokens, heads, row_stride, head_stride, token_stride, angle_stride,
    half: tl.constexpr, some: tl.constexpr, backward: tl.constexpr,
):  # fmt: skip
    """Rotate the two halves of `some` heads of one token of `x`, (rows, heads, tokens, 2 * half).

    `cosine` and `sine` are (rows or 1, tokens, 2 * half); `out` is (rows, tokens, heads, 2 * half).
    """
    place = tl.program_id(0).to(tl.int64)
    token, row = place % tokens, place // tokens
    head, column = (tl.program_id(1) * some + tl.arange(0, some))[:, None], tl.arange(0, half)[None, :]
    inside = head < heads
    source = x + row * row_stride + head * head_stride + token * token_stride + column
    target = out + (place * heads + head) * 2 * half + column
    angle = row * angle_stride + token * 2 * half + column
    first = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + half, mask=inside, other=0.0).to(tl.float32)
    first_cosine, second_cosine = tl.load(cosine + angle).to(tl.float32), tl.load(cosine + angle + half).to(tl.float32)
    first_sine, second_sine = tl.load(sine + angle).to(tl.float32), tl.load(sine + angle + half).to(tl.float32)
    if backward:
        one = first * first_cosine + second * second_sine
        two = second * second_cosine - first * first_sine
    else:
        one = first * first_cosine - second * first_sine
        two = second * second_cosine + first * second_sine
    tl.store(target, one.to(out.dtype.element_ty), mask=inside)
    tl.store(target + half, two.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["blocks"])
def _unpack(
    packed, code, scales, scale_code, scales_of_scales, offset, out, blocks,
    half: tl.constexpr, group: tl.constexpr, some: tl.constexpr,
):  # fmt: skip
    """Dequantise `some` of the blocks of `2 * half` weights. Each byte of `packed` holds two, the first one higher.

    Weights are positions in `code`. A block's scale is a position in `scale_code`; `group` blocks have one scale of
    scales, and all have the same offset.
    """
    block = tl.program_id(0).to(tl.int64) * some + tl.arange(0, some)
    inside = block < blocks
    scale = tl.load(scale_code + tl.load(scales + block, mask=inside, other=0).to(tl.int32))
    scale = scale * tl.load(scales_of_scales + block // group, mask=inside, other=0.0) + tl.load(offset)
    byte = tl.load(packed + block[:, None] * half + tl.arange(0, half)[None, :], mask=inside[:, None], other=0)
    byte = byte.to(tl.int32)
    first, second = tl.load(code + (byte >> 4)) * scale[:, None], tl.load(code + (byte & 15)) * scale[:, None]
    both = tl.interleave(first.to(out.dtype.element_ty), second.to(out.dtype.element_ty))
    at = block[:, None] * (2 * half) + tl.arange(0, 2 * half)[None, :]
    tl.store(out + at, both, mask=inside[:, None])


_HEADS = 8
"""Heads of a program of `_rotate`."""
_BLOCKS = 64
"""Blocks of a program of `_unpack`."""
_ELEMENTS = 1024
"""Elements of a program that needs no whole row."""


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.epsilon = epsilon
        return _over_rows(_norm_rows, (x, weight), x, epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        return _over_rows(_norm_rows_backward, (gradient.contiguous(), x, weight), x, ctx.epsilon), None, None


def _over_rows(kernel: Any, given: tuple[torch.Tensor, ...], x: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Run a kernel with one program for each row of `x`, (..., size); return its output, in the shape of `x`."""
    out, size = torch.empty_like(x), x.shape[-1]
    block = triton.next_power_of_2(size)
    kernel[(x.numel() // size,)](*given, out, size, epsilon, block=block, num_warps=min(8, max(1, block // 256)))
    return out


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        out, size = torch.empty_like(gate), gate.numel()
        _gate[(triton.cdiv(size, _ELEMENTS),)](gate, up, out, size, block=_ELEMENTS)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        of_gate, of_up, size = torch.empty_like(gate), torch.empty_like(up), gate.numel()
        grid = (triton.cdiv(size, _ELEMENTS),)
        _gate_backward[grid](gradient.contiguous(), gate, up, of_gate, of_up, size, block=_ELEMENTS)
        return of_gate, of_up


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cosine, sine)
        return _rotated(x, cosine, sine, backward=False)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        return _rotated(gradient, *ctx.saved_tensors, backward=True), None, None


def _rotated(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, *, backward: bool) -> torch.Tensor:
    """Return `x`, (rows, heads, tokens, size), rotated; `cosine` and `sine` are (rows or 1, tokens, size)."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    cosine, sine = cosine.contiguous(), sine.contiguous()
    rows, heads, tokens, size = x.shape
    out = x.new_empty(rows, tokens, heads, size)
    _rotate[(rows * tokens, triton.cdiv(heads, _HEADS))](
        x, cosine, sine, out, tokens, heads, x.stride(0), x.stride(1), x.stride(2),
        0 if len(cosine) == 1 else cosine.stride(0), half=size // 2, some=_HEADS, backward=backward, num_warps=2,
    )  # fmt: skip
    return out.transpose(1, 2)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return `x`, (..., size), divided by its root mean square and multiplied by `weight`, (size,).

    The gradient is that of `x` alone: `weight` is frozen.
    """
    found: torch.Tensor = _RmsNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]
    return found


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) * up; both have the same shape."""
    found: torch.Tensor = _SwiGlu.apply(gate, up)  # type: ignore[no-untyped-call]
    return found


def rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Return `x`, (rows, heads, tokens, size), rotated by its positions (Su et al., arXiv:2104.09864).

    `cosine` and `sine` are (rows or 1, tokens, size). The size of a head must be a power of two.
    """
    found: torch.Tensor = _Rotation.apply(x, cosine, sine)  # type: ignore[no-untyped-call]
    return found


def dequantised(packed: torch.Tensor, state: Any) -> torch.Tensor:
    """Return the matrix, (out, in), that bitsandbytes packed with this `QuantState`.

    Its scales must be quantised too, and the matrix must have whole blocks.
    """
    out = torch.empty(state.shape, dtype=state.dtype, device=packed.device)
    blocks = out.numel() // state.blocksize
    # bitsandbytes rounds a scale before it adds the offset, which a fused multiplication and addition would not.
    _unpack[(triton.cdiv(blocks, _BLOCKS),)](
        packed, state.code, state.absmax, state.state2.code, state.state2.absmax, state.offset, out, blocks,
        half=state.blocksize // 2, group=state.state2.blocksize, some=_BLOCKS, enable_fp_fusion=False,
    )  # fmt: skip
    return out
