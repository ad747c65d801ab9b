"""What a trial costs alone: a few steps with SFTTrainer, scaled. A student trains one at a time, and so will do it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.engine.base import Base
from harness.engine.fused.learner import windows
from harness.engine.reference import trained
from harness.engine.rows import Row
from harness.records import PhaseCost, Scheduler, Settings

STEPS = 3
"""In the first, on the longest rows, memory peaks and kernels are loaded; the others, on usual rows, are timed."""


def shape_of(settings: Settings, rows: Sequence[Row]) -> Settings:
    """The same for trials of which a step costs the same; a `max_length` changes that where it cuts rows."""
    longest = max((len(row.input_ids) for row in rows), default=settings.max_length)
    return replace(
        settings,
        learning_rate=1e-9,
        scheduler=Scheduler.CONSTANT,
        epochs=1.0,
        warmup=0.0,
        alpha=1,
        weight_decay=0.0,
        rslora=False,
        max_length=longest,
    )


def probe(base: Base, rows: Sequence[Row], settings: Settings, *, model_name: str) -> PhaseCost:
    """The peaks of a trial's training, and as `seconds` and `tokens` those of one of its steps.

    Raises:
        torch.OutOfMemoryError: the trial does not fit alone.
    """
    few = replace(settings, epochs=1.0, learning_rate=1e-9, warmup=0.0)
    chosen = _chosen(rows, few)
    ticks: list[float] = []

    def tick(*_: Any) -> None:
        ticks.append(time.perf_counter())

    with trained(base, chosen, few, 0, model_name=model_name, progress=tick) as found:
        cost = found.cost
    each = (ticks[-1] - ticks[0]) / (STEPS - 1)
    return replace(cost, seconds=replace(cost.seconds, value=each), tokens=cost.tokens // STEPS)


def _chosen(rows: Sequence[Row], settings: Settings) -> list[Row]:
    """Rows for so many steps: the longest come in the first, then some from all over the lengths."""
    ordered = sorted(rows, key=lambda row: -len(row.input_ids))
    size = settings.batch_size * settings.gradient_accumulation
    usual = size * (STEPS - 1)
    wanted = [ordered[n % len(ordered)] for n in range(size)]
    wanted += [ordered[(2 * n + 1) * len(ordered) // (2 * usual)] for n in range(usual)]
    places = [row for window in windows(len(wanted), settings, 0) for row in window.rows]
    return [row for _, row in sorted(zip(places, wanted, strict=True), key=lambda pair: pair[0])]


def alone(probed: PhaseCost, tokens: int, steps: int) -> PhaseCost:
    """What a training of so many tokens and steps costs, by a probe of its shape."""
    seconds = replace(probed.seconds, value=probed.seconds.value * steps)
    note = f"alone, from a solo probe of {STEPS} steps, scaled to {steps}"
    return replace(probed, seconds=seconds, tokens=tokens, note=note)
