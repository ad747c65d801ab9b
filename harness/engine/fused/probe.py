"""What a trial costs alone: a few steps with SFTTrainer, scaled. A student trains one at a time, and so will do it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.core.settings import AXES, Settings
from harness.engine.base import Base
from harness.engine.fused.learner import steps_of, windows
from harness.engine.reference import trained
from harness.engine.rows import Row
from harness.records import PhaseCost

TIMED = 2
"""Whole steps that are timed."""


@dataclass(frozen=True)
class Probe:
    """What a trial's steps take alone: a whole one, and one at an epoch's end, which may have fewer rows."""

    cost: PhaseCost
    """Its peaks."""
    whole: float
    """Seconds."""
    last: float
    per_epoch: int
    steps: int
    """How many were made to find this out."""

    def alone(self, steps: int, tokens: int) -> PhaseCost:
        """What a training of so many steps and tokens costs."""
        ends = steps // self.per_epoch
        seconds = (steps - ends) * self.whole + ends * self.last
        note = f"alone, from a solo probe of {self.steps} steps, scaled to {steps}"
        return replace(self.cost, seconds=replace(self.cost.seconds, value=seconds), tokens=tokens, note=note)


def shape_of(settings: Settings, rows: Sequence[Row]) -> Settings:
    """The same for trials of which a step costs the same; a `max_length` changes that where it cuts rows."""
    longest = max((len(row.input_ids) for row in rows), default=settings.max_length)
    return replace(settings, **{axis.name: axis.default for axis in AXES.values() if not axis.cost}, max_length=longest)


def probe(base: Base, rows: Sequence[Row], settings: Settings) -> Probe:
    """Train an epoch of few steps: one that loads kernels, some that are timed, one of the longest rows, and the last.

    Memory peaks in that of the longest rows, and only when the optimizer has its state: not in the first.

    Raises:
        torch.OutOfMemoryError: the trial does not fit alone.
    """
    few = replace(settings, epochs=1.0, learning_rate=1e-9, warmup=0.0)
    size, per_epoch = few.batch_size * few.gradient_accumulation, steps_of(len(rows), few)
    rest = len(rows) % size
    if per_epoch == 1:  # a step never has more rows than there are: all of them, every time
        chosen, rest, few = list(rows), 0, replace(few, epochs=1.0 + TIMED)
    else:
        chosen = _chosen(rows, few, size, rest)
    ticks: list[float] = []

    def tick(*_: Any) -> None:
        ticks.append(time.perf_counter())

    with trained(base, chosen, few, 0, progress=tick) as found:
        cost = found.cost
    whole = (ticks[TIMED] - ticks[0]) / TIMED
    last = ticks[-1] - ticks[-2] if rest else whole
    return Probe(cost, whole, last, per_epoch, len(ticks))


def _chosen(rows: Sequence[Row], settings: Settings, size: int, rest: int) -> list[Row]:
    """Rows for the probe's steps of `size` rows and for its last of `rest`, in such places that each gets its own."""
    ordered = sorted(rows, key=lambda row: -len(row.input_ids))
    wanted = [*_spread(ordered, size) * (1 + TIMED), *ordered[:size], *_spread(ordered, rest)]
    places = [row for window in windows(len(wanted), settings, 0) for row in window.rows]
    return [row for _, row in sorted(zip(places, wanted, strict=True), key=lambda pair: pair[0])]


def _spread(ordered: Sequence[Row], count: int) -> list[Row]:
    """So many from all over the lengths."""
    return [ordered[(2 * n + 1) * len(ordered) // (2 * count)] for n in range(count)]
