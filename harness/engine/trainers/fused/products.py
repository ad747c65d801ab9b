"""Products of a stacked layer with a backward of its own, which adds the adapters' gradients to those of the stack.

Autograd would compute the same gradients with twice as many kernels, each of which reads or writes whole activations.
Importing this Python module imports torch, so import it only inside functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from harness.engine.matrices import matrix

if TYPE_CHECKING:
    from harness.engine.trainers.fused.layer import StackedLinear
    from harness.engine.trainers.fused.layout import Layout


def stacked_product(x: torch.Tensor, given: torch.Tensor | None, layer: StackedLinear, layout: Layout) -> torch.Tensor:
    """Return the base's product of `x`, (rows, tokens, in), plus that of the adapters, (rows, tokens, out).

    `given` is the input of the adapters, (members, depth * tokens, in); None if it is `x` itself.
    """
    # When backward recomputes a checkpointed layer, PyTorch stops after the last tensor that was saved for backward.
    # `_Saved` saves all of them before the product, so the product of the layer's last module is never recomputed.
    with torch.no_grad():
        weight = matrix(layer.base_layer, x.dtype)
        inner = _inner(layout.gather(x, fill=True) if given is None else given, layer)
    promised = _Saved.apply(x, given, layer.A, inner, weight, layer, layout)  # type: ignore[no-untyped-call]
    result: torch.Tensor = _Computed.apply(promised, x.detach(), inner, weight, layer, layout)  # type: ignore[no-untyped-call]
    return result


def added_product(result: torch.Tensor, given: torch.Tensor, layer: StackedLinear, layout: Layout) -> torch.Tensor:
    """Return `result`, the base's output, plus the adapters' product of `given`; shapes as in `stacked_product`."""
    found: torch.Tensor = _AddedProduct.apply(result, given, layer.A, layer, layout)  # type: ignore[no-untyped-call]
    return found


class _Saved(torch.autograd.Function):
    """Saves what the backward of `stacked_product` needs, and is that backward.

    Its output only stands for the result and has no memory. `_a` only tells autograd that the output needs a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        given: torch.Tensor | None,
        _a: torch.Tensor,
        inner: torch.Tensor,
        weight: torch.Tensor,
        layer: StackedLinear,
        layout: Layout,
    ) -> torch.Tensor:
        # While a layer is run again in backward, its matrix is kept, so that it is dequantised once for both. In the
        # first run, checkpointing drops everything that is saved.
        ctx.save_for_backward(x if given is None else given, inner, *([weight] if layer.recomputed else []))
        ctx.layer, ctx.layout, ctx.own_input = layer, layout, given is not None
        return x.new_zeros(()).expand(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        layer, layout = ctx.layer, ctx.layout
        saved, inner, *kept = ctx.saved_tensors
        given = saved if ctx.own_input else layout.gather(saved, fill=True)
        of_inner = _add_gradients(layer, layout, gradient, given, inner)
        of_x = of_given = None
        if ctx.needs_input_grad[0]:
            (weight,) = kept or [matrix(layer.base_layer, gradient.dtype)]
            of_x = gradient.matmul(weight)
            if not ctx.own_input:
                of_x = layout.add_product(of_x, of_inner, layer.A, in_place=True)
        if ctx.own_input and ctx.needs_input_grad[1]:
            of_given = torch.bmm(of_inner, layer.A)
        return of_x, of_given, None, None, None, None, None


class _Computed(torch.autograd.Function):
    """Computes the result of `stacked_product`, and hands its gradient to `_Saved`."""

    @staticmethod
    def forward(
        _ctx: Any,
        _promised: torch.Tensor,
        x: torch.Tensor,
        inner: torch.Tensor,
        weight: torch.Tensor,
        layer: StackedLinear,
        layout: Layout,
    ) -> torch.Tensor:
        bias: torch.Tensor | None = layer.base_layer.bias  # type: ignore[assignment]
        result = torch.nn.functional.linear(x, weight, None if bias is None else bias.to(x.dtype))
        return layout.add_product(result, inner, layer.B.transpose(1, 2), in_place=True)

    @staticmethod
    def backward(_ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        return gradient, None, None, None, None, None


class _AddedProduct(torch.autograd.Function):
    """`added_product`. The input `_a` only tells autograd that the output needs a gradient."""

    @staticmethod
    def forward(
        ctx: Any, result: torch.Tensor, given: torch.Tensor, _a: torch.Tensor, layer: StackedLinear, layout: Layout
    ) -> torch.Tensor:
        inner = _inner(given, layer)
        ctx.save_for_backward(given, inner)
        ctx.layer, ctx.layout = layer, layout
        return layout.add_product(result, inner, layer.B.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        given, inner = ctx.saved_tensors
        of_inner = _add_gradients(ctx.layer, ctx.layout, gradient.to(inner.dtype), given, inner)
        of_given = torch.bmm(of_inner, ctx.layer.A) if ctx.needs_input_grad[1] else None
        return gradient, of_given, None, None, None


def _inner(given: torch.Tensor, layer: StackedLinear) -> torch.Tensor:
    """Return the scaled product with `A`, (members, depth * tokens, rank).

    PEFT scales the product with `B`. This one is hundreds of times smaller, and scaling it gives the same result.
    """
    return torch.bmm(given, layer.A.transpose(1, 2)).mul_(layer.scaling)


def _add_gradients(
    layer: StackedLinear, layout: Layout, gradient: torch.Tensor, given: torch.Tensor, inner: torch.Tensor
) -> torch.Tensor:
    """Add the gradients of `A` and `B` to the stack's; return that of the product with `A`, in the shape of `inner`.

    `gradient` is that of the output, (rows, tokens, out).
    """
    if layer.gradients is None:
        raise ValueError("backward runs before zero_grad")
    own = layout.gather(gradient, fill=True)
    if layer.largest is not None:
        torch.linalg.vector_norm(own, torch.inf, dim=(1, 2), out=layer.largest)
    of_inner = torch.bmm(own, layer.B).mul_(layer.scaling)
    of_a, of_b = layer.gradients
    of_b.baddbmm_(own.transpose(1, 2), inner)
    of_a.baddbmm_(of_inner.transpose(1, 2), given)
    layer.reached = True
    return of_inner
