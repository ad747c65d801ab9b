"""Predict a trial's memory and time from its settings, the model's shape and its rows' token counts, without a GPU.

batches      token counts of the rows -> batches, their labels, and optimizer steps
memory       model shape and batches -> peak memory, term by term
speed        model shape and batches -> seconds
predictions  model name, suite and GPU -> predictions for the trials of a grid

All figures are predictions. The error that is stated for memory was measured on recorded runs in which an H100 was
limited to a T4's memory (`python -m tests.studies.estimate_fit`); no run was on a T4. The predicted time on a T4 is a
range, which is not validated before `harness doctor --calibrate` runs on a T4.
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
from harness.hardware.estimate.speed import (
    answering_seconds,
    fit_speeds,
    mixed_answering_seconds,
    pass_seconds,
    training_seconds,
)
from harness.models.architecture import ModelShape, shape_of

__all__ = [
    "SETUP", "Batches", "Coefficients", "Fit", "Memory", "ModelShape", "Moment", "Prediction", "Range",
    "answering_seconds", "batches", "coefficients", "fit", "fit_speeds", "memory", "mixed_answering_seconds",
    "pass_seconds", "predict", "reserved", "shape_of", "training_seconds", "updates",
]  # fmt: skip


@dataclass(frozen=True)
class Range:
    """Lower and upper bound of a figure."""

    low: float
    high: float


SETUP = Range(1.0, 8.0)
"""Seconds before a training's first step: creating the adapter and the trainer and, in a new process, importing
libraries and compiling kernels. Source: reports/gpu/t4/t4-sweep.json, in which trainings of four short steps took 2 to
8.4 s on an H100."""


class Fit(StrEnum):
    """Whether a trial is predicted to fit into memory. `CLOSE`: within the error, it may or may not fit."""

    FITS = "fits"
    CLOSE = "close"
    TOO_LARGE = "does not fit"


@dataclass(frozen=True)
class Prediction:
    """Predicted memory and time of one trial."""

    memory: Memory
    reserved: Range
    """Bytes that the allocator reserves on the GPU, with fragmentation."""
    fit: Fit | None
    """Whether the trial fits into memory; None if there is no memory limit."""
    training: Range
    """Seconds to train, including the setup before the first step."""
    answering: Range
    """Seconds to answer the suite's cases."""
    updates: int

    @property
    def seconds(self) -> Range:
        return Range(self.training.low + self.answering.low, self.training.high + self.answering.high)


@cache
def coefficients() -> Coefficients:
    """Read the coefficients from the package, into which `python -m tests.studies.estimate_fit --write` writes them."""
    given = json.loads((files(__package__) / "coefficients.json").read_text(encoding="utf-8"))
    low, high = given["fragments"]
    names = ("scores", "constant", "error", "source", "measured")
    return Coefficients(fragments=(low, high), **{name: given[name] for name in names})


def predict(
    shape: ModelShape,
    settings: Settings,
    lengths: Sequence[int],
    supervised: Sequence[int] | None = None,
    *,
    capacity: float | None = None,
    prompts: int = 0,
    new_tokens: int = 0,
    speeds: tuple[Speed, Speed] = SPEEDS,
    known: Coefficients | None = None,
) -> Prediction:
    """Predict memory and time of a training on rows of `lengths` tokens, and the time to answer `prompts` prompts.

    `supervised` are the tokens with labels of each row; None means that all tokens are counted as such.
    `capacity` is the number of bytes that the allocator may reserve. `speeds` are the fastest and the slowest speeds
    assumed for the GPU.

    Raises:
        ModelError: one of the target modules is not a module of the model.
    """
    known = known or coefficients()
    made = batches(settings, lengths, supervised)
    peak = memory(shape, settings, made, known)
    return Prediction(
        memory=peak,
        reserved=reserved(peak, peak.allocated, known),
        fit=fit(peak, known, capacity),
        training=Range(
            SETUP.low + training_seconds(shape, made, speeds[0]), SETUP.high + training_seconds(shape, made, speeds[1])
        ),
        answering=Range(*(answering_seconds(shape, prompts, new_tokens, speed) for speed in speeds)),
        updates=made.updates,
    )


def reserved(peak: Memory, allocated: float, known: Coefficients) -> Range:
    """Return the bytes that the allocator reserves for `allocated` bytes. Only bytes beyond the base model fragment."""
    low, high = known.fragments
    return Range(*(allocated + share * max(0.0, allocated - peak.base) for share in (low, high)))


def fit(peak: Memory, known: Coefficients, capacity: float | None) -> Fit | None:
    """Compare predicted memory with `capacity` (bytes). Return None if `capacity` is None, that is, unlimited.

    A trial fits if its reserved memory fits even with the largest expected error added. It does not fit if its
    allocated memory is too large even with that error subtracted. Fragments are not counted here, because the
    allocator can free them.
    """
    if capacity is None:
        return None
    if reserved(peak, peak.allocated * (1 + known.error), known).high <= capacity:
        return Fit.FITS
    return Fit.TOO_LARGE if peak.allocated * (1 - known.error) > capacity else Fit.CLOSE
