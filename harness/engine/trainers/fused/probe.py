"""Measures the cost of training a trial alone, from a few steps with SFTTrainer.

Training trials together shows only their total cost, but users train one adapter at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from harness.core.measurement import PhaseCost
from harness.core.settings import AXES, Scheduler, Settings
from harness.engine.loading import Base
from harness.engine.tokenization import Row
from harness.engine.trainers.fused.trial_state import steps_of, windows
from harness.engine.trainers.protocol import Trainer, TrialInput

TIMED = 2
"""Number of full steps that are timed."""


@dataclass(frozen=True)
class Probe:
    """Time and memory of a trial's steps when it is trained alone."""

    cost: PhaseCost
    """Cost of the probe; only its memory figures hold for a whole training."""
    full: float
    """Seconds of a full step."""
    last: float
    """Seconds of the last step of an epoch, which may have fewer rows."""
    per_epoch: int
    """Steps of an epoch."""
    steps: int
    """Steps of the probe."""

    def alone(self, steps: int, tokens: int) -> PhaseCost:
        """Return what a training with `steps` steps and `tokens` tokens costs if the trial is trained alone."""
        ends = steps // self.per_epoch
        seconds = (steps - ends) * self.full + ends * self.last
        scaled = replace(self.cost.seconds, value=seconds)
        return replace(self.cost, seconds=scaled, tokens=tokens, probes=1, probe_steps=self.steps)


def shape_of(settings: Settings, longest: int) -> Settings:
    """Return settings that are equal for all trials whose steps cost the same.

    Settings without influence on cost get their defaults, and `max_length` the length of the longest row (`longest`).
    """
    return replace(settings, **{axis.name: axis.default for axis in AXES.values() if not axis.cost}, max_length=longest)


def probe(base: Base, rows: Sequence[Row], settings: Settings, trainer: Trainer) -> Probe:
    """Train a trial alone for one short epoch, and measure the cost.

    The steps are one that loads kernels, `TIMED` timed ones, one with the longest rows, and the last one of the epoch.
    Memory peaks in the step with the longest rows. That one does not come first, when the optimizer has no state yet.

    Raises:
        torch.OutOfMemoryError: the trial does not fit in memory alone.
    """
    # A schedule may not allow so low a learning rate.
    low = replace(settings, learning_rate=1e-9, warmup=0.0, scheduler=Scheduler.CONSTANT, lr_scheduler_kwargs=())
    few = replace(low, epochs=1.0)
    size, per_epoch = few.batch_size * few.gradient_accumulation, steps_of(len(rows), few)
    rest = len(rows) % size
    if per_epoch == 1:  # one step has all rows of an epoch
        chosen, rest, few = list(rows), 0, replace(few, epochs=1.0 + TIMED)
    else:
        chosen = _chosen(rows, few, size, rest)
    ticks: list[float] = []

    def tick(*_: Any) -> None:
        ticks.append(time.perf_counter())

    with closing(trainer.train(base, [TrialInput("probe", chosen, few, 0)], progress=tick)) as results:
        cost = next(results).cost
    if cost is None:
        raise ValueError("a probe needs a trainer that measures a trial alone")
    full = (ticks[TIMED] - ticks[0]) / TIMED
    last = ticks[-1] - ticks[-2] if rest else full
    return Probe(cost, full, last, per_epoch, len(ticks))


def _chosen(rows: Sequence[Row], settings: Settings, size: int, rest: int) -> list[Row]:
    """Return the probe's rows, in an order that the trainer's shuffling turns into the planned steps.

    Each step has `size` rows, and the last one `rest`.
    """
    ordered = sorted(rows, key=lambda row: -len(row.input_ids))
    wanted = [*_spread(ordered, size) * (1 + TIMED), *ordered[:size], *_spread(ordered, rest)]
    places = [row for window in windows(len(wanted), settings, 0) for row in window.rows]
    return [row for _, row in sorted(zip(places, wanted, strict=True), key=lambda pair: pair[0])]


def _spread(ordered: Sequence[Row], count: int) -> list[Row]:
    """Return `count` rows at evenly spaced positions of `ordered`."""
    return [ordered[(2 * n + 1) * len(ordered) // (2 * count)] for n in range(count)]
