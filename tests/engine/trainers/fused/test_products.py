"""The backward of a stacked layer gives autograd's gradients with fewer operations."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from harness.engine.trainers.fused.layout import PassRow
from harness.engine.trainers.fused.stack import Adapter, Stack


class Counts(TorchDispatchMode):
    """Counts the operations that run, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def four_bit(sizes: Sequence[int]) -> Any:
    """Return 4-bit layers from each size to the next."""
    torch.manual_seed(0)
    layers = [
        Linear4bit(a, b, bias=False, quant_type="nf4", compute_dtype=torch.float32)
        for a, b in itertools.pairwise(sizes)
    ]
    return torch.nn.Sequential(*layers).to("cpu").requires_grad_(False)


def stacked(model: Any, ranks: Sequence[int]) -> tuple[Stack, list[Adapter]]:
    """Stack random adapters of these ranks on all layers, with a different scaling each."""
    shapes = {str(n): (layer.in_features, layer.out_features) for n, layer in enumerate(model)}
    adapters = [
        Adapter(
            {name: (torch.randn(rank, a), torch.randn(b, rank)) for name, (a, b) in shapes.items()},
            dict.fromkeys(shapes, 0.5 * rank),
        )
        for rank in ranks
    ]
    return Stack(model, adapters), adapters


def by_autograd(model: Any, adapters: Sequence[Adapter], x: torch.Tensor, slots: Sequence[int]) -> list[torch.Tensor]:
    """Return the gradients of the adapters, slot by slot, that autograd computes for the sum of the squared output."""
    leaves = [
        {name: [half.clone().requires_grad_() for half in pair] for name, pair in adapter.weights.items()}
        for adapter in adapters
    ]
    for half in (half for own in leaves for pair in own.values() for half in pair):
        half.grad = torch.zeros_like(half)
    rows = []
    for row, slot in zip(x, slots, strict=True):
        for name, layer in model.named_children():
            a, b = leaves[slot][name]
            row = layer.base_layer(row) + row @ a.T @ b.T * adapters[slot].scaling[name]
        rows.append(row)
    torch.stack(rows).square().sum().backward()
    return [torch.cat([half.grad.flatten() for pair in own.values() for half in pair]) for own in leaves]


@pytest.mark.parametrize(("ranks", "slots"), [((2, 2), (0, 0, 1, 1)), ((2, 3), (0, 1, 1)), ((2, 2, 1), (0, 0, 2))])
def test_gradients_equal_autograds(ranks: Sequence[int], slots: Sequence[int]) -> None:
    """The gradients in the stack equal autograd's, for even and uneven rows and ranks, and add up over passes."""
    model = four_bit((64, 128, 64))
    stack, adapters = stacked(model, ranks)
    x = torch.randn(len(slots), 5, 64)
    stack.zero_grad()
    for _ in range(2):
        stack.enter([PassRow(slot, 5) for slot in slots])
        model(x).square().sum().backward()
    for slot, expected in enumerate(by_autograd(model, adapters, x, slots)):
        found = torch.empty_like(expected)
        stack.read_gradient(slot, found)
        torch.testing.assert_close(found, 2 * expected, rtol=1e-4, atol=1e-3)
    assert stack.reached() == {"0", "1"}


def steps_of(*, recomputed: bool) -> tuple[torch.Tensor, Counter[str]]:
    """Return the gradients of a checkpointed pass, and the operations that it took."""
    model = four_bit((64, 128, 64))
    stack, _ = stacked(model, (2, 2))
    for layer in stack.layers.values():
        layer.recomputed = recomputed
    stack.zero_grad()
    stack.enter([PassRow(0, 5), PassRow(1, 5)])
    x = torch.linspace(-1, 1, 2 * 5 * 64).view(2, 5, 64).requires_grad_()
    with Counts() as counts:
        checkpoint(model, x, use_reentrant=False).square().sum().backward()
    found = torch.empty(2 * 2 * (64 + 128))
    stack.read_gradient(0, found)
    return found, counts.found


def test_a_recomputed_layer_dequantises_its_matrix_once_for_backward() -> None:
    """A layer that is recomputed dequantises its matrix twice in a step, not three times, with equal gradients."""
    (plain, thrice), (again, twice) = steps_of(recomputed=False), steps_of(recomputed=True)
    assert plain.equal(again)
    assert (thrice["dequantize_4bit"], twice["dequantize_4bit"]) == (6, 4)


def test_the_last_product_of_a_checkpointed_layer_is_not_recomputed() -> None:
    """Of two modules in a checkpointed layer, the first computes its product three times in a step, the last twice."""
    _, counts = steps_of(recomputed=True)
    assert counts["mm"] == 3 + 2
