"""Predict memory and time of each variant from a model's name, a suite's rows and a GPU, without torch or a GPU."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.device_profiles import REFERENCE, SPEEDS, Profile, Speed, profile_for
from harness.core.errors import ModelError
from harness.core.machine import Calibration
from harness.core.model import ModelRef
from harness.core.quantities import gib
from harness.core.settings import Settings, Trial
from harness.core.suite import Split, Suite
from harness.core.units import DeviceKind
from harness.core.wording import one
from harness.hardware import estimate
from harness.hardware.estimate import Fit, Forecast, ModelShape, Range
from harness.hardware.gpu import Gpu, gpu
from harness.models.hub import Hub
from harness.models.resolving import described, shape_in
from harness.models.token_lengths import Lengths, lengths
from harness.storage.cache import Cache

CALIBRATED = 0.15
"""Least relative error that a prediction assumes on a calibrated GPU; a larger error of the calibration replaces it."""


@dataclass(frozen=True)
class Subject:
    """What is trained and evaluated: the model's shape, the suite's row lengths in tokens, the number of answers."""

    model: str
    shape: ModelShape
    lengths: Lengths
    prompts: int
    new_tokens: int
    notice: str = ""
    """Says where the shape comes from, unless it is from the model's own configuration."""


@dataclass(frozen=True)
class Where:
    """The GPU that a forecast is for: what its allocator may reserve, and its speeds at best and at worst."""

    device: str
    capacity: int
    speeds: tuple[Speed, Speed] | None
    """None without a calibration, unless a profile has the GPU's data sheet."""
    profile: Profile | None = None
    """The GPU's profile, if it has one."""
    calibrated: str = ""
    """When the GPU was calibrated; empty: it was not."""

    @property
    def claim(self) -> str:
        """What may be claimed of a predicted time."""
        if self.speeds is None:
            return f"time is not predicted for {one(self.device)}: `harness doctor --calibrate` there takes two minutes"
        if self.calibrated:
            return f"time calibrated on {one(self.device)} on {self.calibrated[:10]}"
        untested = one((self.profile or REFERENCE).title)
        return f"time not validated on {untested}: `harness doctor --calibrate` there takes two minutes"


def subject(model: str, suite: Suite, *, hub: Hub | None = None) -> Subject:
    """The subject for the model called `model`. Weights of a model of the Hub are not downloaded.

    Raises:
        ModelError: it is not there, or is of an architecture that is not predicted.
    """
    try:
        found, notice, elsewhere = described(model, hub=hub), "", False
    except ModelError:
        known = shape_in(model) if not Path(model).exists() else None
        if known is None:
            raise
        found, notice, elsewhere = described(known), f"{model} is not here; its shape is that of {known}", True
    return _subject(model, suite, found.config, None if elsewhere else found.tokenizer, notice)


def public_shape(name: str) -> ModelShape:
    """The shape that `shape:NAME` has."""
    config = described(f"shape:{name}").config / "config.json"
    return estimate.shape_of(json.loads(config.read_text(encoding="utf-8")))


def resolved(model: ModelRef, suite: Suite) -> Subject:
    """The subject for a model that is already on this machine.

    Raises:
        ModelError: it is of an architecture that is not predicted.
    """
    return _subject(model.name, suite, Path(model.path), Path(model.tokenizer or model.path))


def _subject(model: str, suite: Suite, config: Path, tokenizer: Path | None, notice: str = "") -> Subject:
    shape = estimate.shape_of(json.loads((config / "config.json").read_text(encoding="utf-8")))
    prompts = len(suite.of(Split.MAIN)) * suite.repeats
    return Subject(model, shape, lengths(suite.examples, tokenizer), prompts, suite.decoding.max_new_tokens, notice)


def where(profile: Profile, cache: Cache, *, found: Gpu | None = None) -> Where | None:
    """The GPU to predict for: the profile's; for `auto` this machine's GPU, or the reference GPU if it has none.

    `found` replaces the GPU that the driver names. None for `cpu`, whose time and memory are not predicted.
    """
    if profile.kind is DeviceKind.CPU:
        return None
    here, asked = found or gpu(), profile if profile.kind else None
    if here is None:
        return _calibrated(_of_profile(asked or REFERENCE), cache)
    known = asked or profile_for(here.name)
    return _calibrated(_of_profile(known, here.name) if known else Where(here.name, here.capacity, None), cache)


def _of_profile(profile: Profile, here: str = "") -> Where:
    """The profile's GPU; `here` is the driver's name of this machine's GPU, which may be another one."""
    device = here if profile.is_device(here) else profile.device
    return Where(device, profile.memory_cap, profile.speeds, profile)


def _calibrated(place: Where, cache: Cache) -> Where:
    known = cache.calibration(place.device)
    return replace(place, speeds=_around(known), calibrated=known.made) if known else place


def _around(known: Calibration) -> tuple[Speed, Speed]:
    """The measured speed made faster and slower by its error: best and worst."""
    off = max(known.error, CALIBRATED)
    best, worst = (_scaled(known, factor) for factor in (1 / (1 + off), 1 + off))
    return best, worst


def _scaled(known: Calibration, factor: float) -> Speed:
    return Speed(known.update * factor, known.launch * factor, known.dequantise * factor, known.flops / factor)


def of(what: Subject, settings: Settings, place: Where) -> Forecast:
    """Predict a trial with these settings on `place`. If its speeds are unknown, a T4's are used, for the order only.

    Raises:
        ModelError: the target modules are not the model's.
    """
    return estimate.forecast(
        what.shape,
        settings,
        what.lengths.tokens,
        capacity=place.capacity,
        prompts=what.prompts,
        new_tokens=what.new_tokens,
        speeds=place.speeds or SPEEDS,
    )


def hopeless(what: Subject, trials: Iterable[Trial], place: Where) -> dict[str, str]:
    """The trials that are predicted not to fit, each with its reason.

    Raises:
        ModelError: the target modules are not the model's.
    """
    made = {trial.id: of(what, trial.settings, place) for trial in trials}
    return {trial: _too_large(found, place) for trial, found in made.items() if found.fit is Fit.TOO_LARGE}


def _too_large(found: Forecast, place: Where) -> str:
    needed, there = gib(found.memory.allocated), gib(place.capacity)
    return f"predicted not to fit and not tried: it needs about {needed}, and {there} can be had"


def weights(what: Subject, trials: Iterable[Trial]) -> dict[str, float]:
    """Relative cost of each trial: predicted seconds on a T4.

    Setup time before the first step is left out: it is a guess, and a long one would make all trials look alike.

    Raises:
        ModelError: the target modules are not the model's.
    """
    middle = Where("any", 0, SPEEDS)
    return {trial.id: of(what, trial.settings, middle).seconds.high - estimate.SETUP.high for trial in trials}


def total(forecasts: Iterable[Forecast]) -> Range:
    """Sum of the predicted seconds."""
    each = [made.seconds for made in forecasts]
    return Range(sum(seconds.low for seconds in each), sum(seconds.high for seconds in each))
