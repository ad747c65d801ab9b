"""As many decoder layers keep their activations as memory allows; all others are computed again in backward."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from harness.core.settings import Quantization
from harness.engine.trainers.fused.recomputation import affordable
from tests.support.exact_trainings import Tiny, exact
from tests.support.fused_passes import SIX, named, together
from tests.support.short_trainings import SHORT

ONE = replace(SHORT, quantization=Quantization.NONE, batch_size=1, target_modules="all-linear")
SPARE = 2**30


@dataclass
class Memory:
    """A memory in which every layer takes a fixed number of bytes, and that has a number of bytes left."""

    unused: int
    used: int = 0
    kept: list[int] = field(default_factory=list)
    """Number of layers that keep their activations, at each forward pass."""

    def allocated(self) -> int:
        self.used += 1000
        return self.used

    def left(self) -> int:
        return self.unused

    def watch(self, model: Any, ids: Any, labels: Any) -> Any:
        """Compute log-probabilities, and note how many layers keep their activations."""
        self.kept.append(sum(not layer.gradient_checkpointing for layer in model.model.layers))
        return exact(model, ids, labels)


@pytest.mark.parametrize(("more", "size", "expected"), [(1000, 100, 10), (99999, 100, 32), (-1, 100, 0), (0, 0, 0)])
def test_layers_keep_what_fits_beside_a_spare(more: int, size: float, expected: int) -> None:
    """The number of layers is what is left beside a spare, divided by the size of one; 0 if the size is unknown."""
    assert affordable(SPARE + more, size, 32) == expected


@pytest.mark.parametrize(("room", "count"), [(-(10**6), 0), (100, 1), (10**6, 2)])
def test_after_two_rounds_layers_keep_their_activations(tiny: Tiny, room: int, count: int) -> None:
    """No layer keeps its activations in the first round, one in the second, and later as many as fit.

    The adapters are bit-identical to those of a training in which all are kept.
    """
    sweep = (ONE, replace(ONE, learning_rate=1e-3))
    memory = Memory(SPARE + room)
    found = together(tiny.base, *sweep, rows=tiny.rows, log_probabilities=memory.watch, memory=memory)
    assert memory.kept[:2] == [0, 1]
    assert set(memory.kept[2:]) == {count}
    for name, own in together(tiny.base, *sweep, rows=tiny.rows, log_probabilities=exact).items():
        assert all(tensor.equal(named(own)[key]) for key, tensor in named(found[name]).items())
    assert not tiny.base.model.is_gradient_checkpointing


def test_without_memory_for_kept_activations_the_round_is_repeated(tiny: Tiny) -> None:
    """If memory runs out while layers keep their activations, the round is repeated and none keeps them any more."""
    memory = Memory(SPARE + 10**6)

    def short(model: Any, ids: Any, labels: Any) -> Any:
        found = memory.watch(model, ids, labels)
        if len(memory.kept) == 4:
            raise torch.OutOfMemoryError
        return found

    found = together(tiny.base, ONE, SIX_OF_ONE, rows=tiny.rows, log_probabilities=short, memory=memory)
    assert memory.kept[:5] == [0, 1, 2, 2, 0]
    assert set(memory.kept[5:]) == {0}
    for name, own in together(tiny.base, ONE, SIX_OF_ONE, rows=tiny.rows, log_probabilities=exact).items():
        assert all(tensor.equal(named(own)[key]) for key, tensor in named(found[name]).items())


SIX_OF_ONE = replace(SIX[1], quantization=Quantization.NONE, batch_size=1)
"""Another trial of one row a step, with a rank and a schedule of its own."""
