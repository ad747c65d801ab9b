"""Predict a trial's memory and time from its settings, the model's shape and the lengths of its rows, without a GPU.

shapes   config.json to sizes          memory  the allocator's worst moment, term by term
lengths  rows to batches and steps     speed   batches to seconds

Every figure is PREDICTED. Memory says how far it was off on recorded runs, in which an H100 was held to a T4's memory
(tests/fit_predict.py); none of them was on a T4. Time on a T4 is a range that nobody has validated there, until
`harness doctor --calibrate` has run on one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

from harness.core.device_profiles import SPEEDS, Speed
from harness.core.settings import Settings
from harness.hardware.estimate.batches import Batches, batches, updates
from harness.hardware.estimate.memory import Coefficients, Memory, Moment, memory
from harness.hardware.estimate.speed import answering_seconds, fitted, training_seconds
from harness.models.architecture import ModelShape, shape_of

__all__ = [
    "SETUP", "Batches", "Coefficients", "Fit", "Forecast", "Memory", "ModelShape", "Moment", "Range",
    "answering_seconds", "batches", "coefficients", "fit", "fitted", "forecast", "memory", "reserved",
    "shape_of", "training_seconds", "updates",
]  # fmt: skip


@dataclass(frozen=True)
class Range:
    """Lower and upper bound of a figure."""

    low: float
    high: float


SETUP = Range(1.0, 8.0)
"""Seconds before a training's first step: making adapters and trainer, and for the first of a process, what it imports
and compiles. By reports/gpu/t4/t4-sweep.json, in which trainings of four short steps took 2 to 8.4 s on an H100."""


class Fit(StrEnum):
    """Whether a trial is predicted to fit. `CLOSE`: the prediction's error does not allow a decision."""

    FITS = "fits"
    CLOSE = "close"
    TOO_LARGE = "does not fit"


@dataclass(frozen=True)
class Forecast:
    """What one trial is predicted to take."""

    memory: Memory
    reserved: Range
    """Bytes that the allocator reserves on the GPU, with fragmentation."""
    fit: Fit | None
    """None if there is no limit."""
    training: Range
    """Seconds, including the trainer's setup."""
    answering: Range
    """Seconds to answer the suite's cases."""
    updates: int

    @property
    def seconds(self) -> Range:
        return Range(self.training.low + self.answering.low, self.training.high + self.answering.high)


@cache
def coefficients() -> Coefficients:
    """The fitted coefficients that come with the harness, written by tests/fit_predict.py."""
    given = json.loads((files(__package__) / "coefficients.json").read_text(encoding="utf-8"))
    low, high = given["fragments"]
    names = ("scores", "constant", "error", "source", "measured")
    return Coefficients(fragments=(low, high), **{name: given[name] for name in names})


def forecast(
    shape: ModelShape,
    settings: Settings,
    lengths: Sequence[int],
    *,
    capacity: float | None = None,
    prompts: int = 0,
    new_tokens: int = 0,
    speeds: tuple[Speed, Speed] = SPEEDS,
    known: Coefficients | None = None,
) -> Forecast:
    """Predict memory and time of a training on rows of `lengths` tokens, and of answering `prompts` prompts after it.

    `capacity` is what the allocator may reserve, in bytes; `speeds` are the GPU's at its best and at its worst.

    Raises:
        ModelError: the target modules are not the model's.
    """
    known = known or coefficients()
    made = batches(settings, lengths)
    held = memory(shape, settings, made, known)
    return Forecast(
        memory=held,
        reserved=reserved(held, held.allocated, known),
        fit=fit(held, known, capacity),
        training=Range(
            SETUP.low + training_seconds(shape, made, speeds[0]), SETUP.high + training_seconds(shape, made, speeds[1])
        ),
        answering=Range(*(answering_seconds(shape, prompts, new_tokens, speed) for speed in speeds)),
        updates=made.updates,
    )


def reserved(held: Memory, allocated: float, known: Coefficients) -> Range:
    """Bytes that the allocator reserves on the GPU for `allocated` bytes; the base's share has no fragmentation."""
    low, high = known.fragments
    return Range(*(allocated + share * max(0.0, allocated - held.base) for share in (low, high)))


def fit(held: Memory, known: Coefficients, capacity: float | None) -> Fit | None:
    """Compare the prediction with `capacity`. Fragments can be freed, so only allocated memory proves a misfit."""
    if capacity is None:
        return None
    if reserved(held, held.allocated * (1 + known.error), known).high <= capacity:
        return Fit.FITS
    return Fit.TOO_LARGE if held.allocated * (1 - known.error) > capacity else Fit.CLOSE
