"""A probe trains one trial alone for a few steps, chosen to show its time and memory."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.core.settings import Scheduler
from harness.engine.loading import Base
from harness.engine.tokenization import Row
from harness.engine.trainers.fused.probe import probe, shape_of
from harness.engine.trainers.fused.trial_state import windows
from harness.engine.trainers.protocol import TrialInput
from harness.engine.trainers.sft import Sft, Trained
from tests.support.short_trainings import SHORT


@dataclass(frozen=True)
class Spy(Sft):
    """A trainer that records the lengths of the rows in every step."""

    seen: list[list[int]] = field(default_factory=list)

    def train(self, base: Base, trials: Sequence[TrialInput], **more: Any) -> Generator[Trained]:
        for trial in trials:
            order = windows(len(trial.rows), trial.settings, trial.seed)
            self.seen.extend([len(trial.rows[row].input_ids) for row in window.rows] for window in order)
        yield from super().train(base, trials, **more)


def test_a_probe_makes_whole_steps_then_the_longest_rows_then_an_epochs_end(base: Base) -> None:
    """A probe takes full steps, then one with the longest rows, then one with the rows that an epoch leaves over."""
    rows = [Row([5] * n, [5] * n) for n in range(10, 20)]
    given = replace(SHORT, batch_size=2, gradient_accumulation=2, epochs=3)
    spy = Spy()
    found, seen = probe(base, rows, given, spy), spy.seen
    assert [len(step) for step in seen] == [4, 4, 4, 4, 2]
    assert seen[0] == seen[1] == seen[2]
    assert sorted(seen[3]) == [16, 17, 18, 19]
    assert (found.steps, found.per_epoch) == (5, 3)
    assert (found.alone(7, 100).probes, found.alone(7, 100).probe_steps) == (1, 5)
    known = replace(found, full=2.0, last=1.0)
    assert [known.alone(steps, 100).seconds.value for steps in (2, 3, 7, 9)] == [4.0, 5.0, 12.0, 15.0]


def test_a_probe_takes_each_row_at_most_once_per_step(base: Base) -> None:
    """If the batch size exceeds the number of rows, each step of a probe takes every row once."""
    rows, spy = [Row([5] * n, [5] * n) for n in (4, 5, 6)], Spy()
    found = probe(base, rows, replace(SHORT, batch_size=8), spy)
    assert [len(step) for step in spy.seen] == [3, 3, 3]
    assert (found.per_epoch, found.last) == (1, found.full)


def test_trials_with_equal_step_costs_share_a_probe() -> None:
    """Trials share a probe unless they differ in something that changes the cost of a step.

    A `max_length` that cuts no row does not change the cost.
    """
    short, long = 9, 64
    other = replace(SHORT, learning_rate=1e-2, epochs=9, warmup=0, scheduler=Scheduler.COSINE, alpha=1, max_length=256)
    assert shape_of(SHORT, short) == shape_of(other, short)
    assert shape_of(SHORT, short) != shape_of(SHORT, long)
    for costly in (replace(SHORT, rank=9), replace(SHORT, batch_size=9), replace(SHORT, optimizer="sgd")):
        assert shape_of(SHORT, short) != shape_of(costly, short)
