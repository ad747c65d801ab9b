"""What a trial takes before any GPU is touched: settings, a model's shape and its rows' lengths to memory and time.

shapes   config.json to sizes          memory  the allocator's worst moment, term by term
lengths  rows to batches and steps     speed   batches to seconds

Every figure is PREDICTED, and none has been held against a GPU yet. Memory says how far it is taken to be off, until
tests/fit_predict.py has fitted it to recorded runs; time on a T4 is a range that nobody has validated there, until
`harness doctor --calibrate` has run on one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

from harness.predict.lengths import Batches, batches, updates
from harness.predict.memory import Coefficients, Memory, Moment, memory, paged
from harness.predict.shapes import ModelShape, shape_of
from harness.predict.speed import Speed, answering_seconds, fitted, training_seconds
from harness.records import Settings

__all__ = [
    "T4", "Batches", "Coefficients", "Fit", "Forecast", "Memory", "ModelShape", "Moment", "Range",
    "Speed", "answering_seconds", "batches", "coefficients", "fitted", "forecast", "memory", "paged", "shape_of",
    "training_seconds", "updates",
]  # fmt: skip


@dataclass(frozen=True)
class Range:
    """A figure that is only known to lie between two."""

    low: float
    high: float


T4 = (
    Speed(update=0.02, launch=1e-3, dequantise=18e-12, flops=20e12),
    Speed(update=0.1, launch=2e-3, dequantise=36e-12, flops=6e12),
)
"""A T4 at its best and at its worst. Its data sheet has 320 GB/s and 65 TFLOP/s in fp16 tensor cores, its 70 W sustain
about a third of that. A dequantised parameter is written and read in 2 bytes each, at 80% and at 40% of the bandwidth.
The worst gives what was published for Llama-2-7b on Alpaca, 1.61 s a sample (README of unsloth, December 2023)."""


class Fit(StrEnum):
    """Whether a trial is predicted to fit; only what is out of reach of the prediction's error is called either."""

    FITS = "fits"
    CLOSE = "close"
    TOO_LARGE = "does not fit"


@dataclass(frozen=True)
class Forecast:
    """What one trial is predicted to take."""

    memory: Memory
    reserved: Range
    """Bytes that the allocator takes from the GPU, fragments among them."""
    fit: Fit | None
    """None where there is no limit to hold it to."""
    training: Range
    """Seconds."""
    answering: Range
    """Seconds, for the suite's cases."""
    updates: int

    @property
    def seconds(self) -> Range:
        return Range(self.training.low + self.answering.low, self.training.high + self.answering.high)


@cache
def coefficients() -> Coefficients:
    """Those that come with the harness, as tests/fit_predict.py wrote them."""
    given = json.loads((files(__package__) / "coefficients.json").read_text(encoding="utf-8"))
    low, high = given["reserved"]
    names = ("hidden", "intermediate", "scores", "constant", "error", "source", "measured")
    return Coefficients(reserved=(low, high), **{name: given[name] for name in names})


def forecast(
    shape: ModelShape,
    settings: Settings,
    lengths: Sequence[int],
    *,
    capacity: float | None = None,
    prompts: int = 0,
    new_tokens: int = 0,
    speeds: tuple[Speed, Speed] = T4,
    known: Coefficients | None = None,
) -> Forecast:
    """Memory and time of a training on rows of these many tokens, and of answering `prompts` prompts after it.

    `capacity` is what the allocator may reserve, in bytes; `speeds` are the GPU's at its best and at its worst.

    Raises:
        ModelError: the target modules are not the model's.
    """
    known = known or coefficients()
    made = batches(settings, lengths)
    held = memory(shape, settings, made, known)
    low, high = held.allocated * (1 - known.error), held.allocated * (1 + known.error) * known.reserved[1]
    return Forecast(
        memory=held,
        reserved=Range(held.allocated * known.reserved[0], held.allocated * known.reserved[1]),
        fit=_fit(low, high, capacity),
        training=Range(*(training_seconds(shape, made, speed) for speed in speeds)),
        answering=Range(*(answering_seconds(shape, prompts, new_tokens, speed) for speed in speeds)),
        updates=made.updates,
    )


def _fit(low: float, high: float, capacity: float | None) -> Fit | None:
    """Fragments can be given back when memory runs short, so only what is allocated is sure not to fit."""
    if capacity is None:
        return None
    if high <= capacity:
        return Fit.FITS
    return Fit.TOO_LARGE if low > capacity else Fit.CLOSE
