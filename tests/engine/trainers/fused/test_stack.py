"""A stack puts the adapters of all trials of a pass on the base, and can be removed without a trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.engine.trainers.fused.layer import Pair
from harness.engine.trainers.fused.layout import PassRow
from harness.engine.trainers.fused.stack import Adapter, Stack


class TooLarge(torch.Tensor):
    """A weight for which no memory is left on the base's device."""

    def new_zeros(self, *size: Any, **options: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError


def pair() -> Pair:
    return torch.ones(2, 4), torch.ones(4, 2)


def test_running_out_of_memory_in_a_layer_removes_the_whole_stack() -> None:
    """If memory runs out while a stack is put on the base, all modules that were already wrapped are unwrapped."""
    modules = [torch.nn.Linear(4, 4) for _ in range(3)]
    model: Any = torch.nn.Sequential(*modules)
    a, b = pair()
    weights = {"0": (a.as_subclass(TooLarge), b), "1": pair(), "2": pair()}
    with pytest.raises(torch.OutOfMemoryError):
        Stack(model, [Adapter(weights, dict.fromkeys(weights, 1.0))])
    assert list(model) == modules


def test_a_removed_stack_leaves_the_base_as_it_was() -> None:
    """A stack wraps only the modules for which the adapters have weights, and removing it unwraps them."""
    modules = [torch.nn.Linear(4, 4) for _ in range(2)]
    model: Any = torch.nn.Sequential(*modules)
    stack = Stack(model, [Adapter({"1": pair()}, {"1": 1.0})])
    assert list(stack.layers) == ["1"]
    assert model[0] is modules[0]
    assert model[1] is not modules[1]
    stack.remove()
    assert list(model) == modules


def test_a_gradient_that_peft_would_overflow_has_no_norm() -> None:
    """In fp16, the norm of a trial is NaN if its gradient overflows when PEFT multiplies it by the scaling."""
    model: Any = torch.nn.Sequential(torch.nn.Linear(4, 4, dtype=torch.float16).requires_grad_(False))
    stack = Stack(model, [Adapter({"0": pair()}, {"0": scaling}) for scaling in (1.0, 16.0)], dtype=torch.float16)
    stack.zero_grad()
    stack.enter([PassRow(0, 1), PassRow(1, 1)])
    out = model(torch.full((2, 1, 4), 1e-4, dtype=torch.float16))
    out.backward(torch.full_like(out, 5000.0))
    stack.end_pass()
    assert stack.norms(torch.float32).isnan().tolist() == [False, True]
    stack.zero_grad()
    assert stack.norms(torch.float32).tolist() == [0, 0]
