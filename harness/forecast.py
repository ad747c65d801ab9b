"""A named model, a suite's rows and a GPU to what each variant is predicted to take there; no torch, no GPU."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from harness import predict
from harness.devices import Gpu, gpu
from harness.errors import ModelError
from harness.hub import Hub
from harness.lengths import Lengths, lengths
from harness.models import described, shape_in
from harness.predict import Fit, Forecast, ModelShape, Range, Speed
from harness.provenance import Profile
from harness.records import GIB, T4_MEMORY_CAP, Calibration, ModelRef, Settings, Split, Suite, Trial
from harness.store import Cache
from harness.wording import one

CALIBRATED = 0.15
"""How far a prediction is taken to be off where the GPU was calibrated, unless the benchmark itself was further off."""


@dataclass(frozen=True)
class Subject:
    """What is trained and asked: a model's shape, the suite's rows in its tokens, how many answers of what size."""

    model: str
    shape: ModelShape
    lengths: Lengths
    prompts: int
    new_tokens: int
    notice: str = ""
    """Where the shape is from, if not from the model's own configuration."""


@dataclass(frozen=True)
class Where:
    """The GPU that a forecast is for: what its allocator may reserve, and its speeds at best and at worst."""

    device: str
    capacity: int
    speeds: tuple[Speed, Speed] | None
    """None where nobody has calibrated it and no data sheet is known here."""
    calibrated: str = ""
    """When, if it was."""

    @property
    def claim(self) -> str:
        """What a predicted time may claim."""
        if self.speeds is None:
            return f"time is not predicted for {one(self.device)}: `harness doctor --calibrate` there takes two minutes"
        if self.calibrated:
            return f"time calibrated on {one(self.device)} on {self.calibrated[:10]}"
        return "time not validated on a T4: `harness doctor --calibrate` there takes two minutes"


def subject(model: str, suite: Suite, *, hub: Hub | None = None) -> Subject:
    """The model called `model`, with the suite's rows in its tokens; of a model of the Hub the weights are not fetched.

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
    return predict.shape_of(json.loads(config.read_text(encoding="utf-8")))


def resolved(model: ModelRef, suite: Suite) -> Subject:
    """The same of a model that is here.

    Raises:
        ModelError: it is of an architecture that is not predicted.
    """
    return _subject(model.name, suite, Path(model.path), Path(model.tokenizer or model.path))


def _subject(model: str, suite: Suite, config: Path, tokenizer: Path | None, notice: str = "") -> Subject:
    shape = predict.shape_of(json.loads((config / "config.json").read_text(encoding="utf-8")))
    prompts = len(suite.of(Split.MAIN)) * suite.repeats
    return Subject(model, shape, lengths(suite.examples, tokenizer), prompts, suite.decoding.max_new_tokens, notice)


def where(profile: Profile, cache: Cache, *, found: Gpu | None = None) -> Where | None:
    """What `profile` means for a forecast: a T4, or for `auto` the GPU that is here, a T4 where there is none.

    `found` stands in for the GPU that the driver names. None for `cpu`, whose time and memory are not predicted.
    """
    if profile is Profile.CPU:
        return None
    here = found or gpu()
    on_t4 = here is not None and "T4" in here.name.split()
    if here is None or profile is Profile.T4 or on_t4:
        device = here.name if here is not None and on_t4 else "Tesla T4"
        return _calibrated(Where(device, T4_MEMORY_CAP, predict.T4), cache)
    return _calibrated(Where(here.name, here.capacity, None), cache)


def _calibrated(place: Where, cache: Cache) -> Where:
    known = cache.calibration(place.device)
    return replace(place, speeds=_around(known), calibrated=known.made) if known else place


def _around(known: Calibration) -> tuple[Speed, Speed]:
    """The measured speed, and as much faster and slower as it may be off."""
    off = max(known.error, CALIBRATED)
    best, worst = (_scaled(known, factor) for factor in (1 / (1 + off), 1 + off))
    return best, worst


def _scaled(known: Calibration, factor: float) -> Speed:
    return Speed(known.update * factor, known.launch * factor, known.dequantise * factor, known.flops / factor)


def of(what: Subject, settings: Settings, place: Where) -> Forecast:
    """What a trial with these settings takes there; where the speed is not known, a T4's stands in, for order only.

    Raises:
        ModelError: the target modules are not the model's.
    """
    return predict.forecast(
        what.shape,
        settings,
        what.lengths.tokens,
        capacity=place.capacity,
        prompts=what.prompts,
        new_tokens=what.new_tokens,
        speeds=place.speeds or predict.T4,
    )


def hopeless(what: Subject, trials: Iterable[Trial], place: Where) -> dict[str, str]:
    """By trial, why it is predicted not to fit; those that may fit are not named.

    Raises:
        ModelError: the target modules are not the model's.
    """
    made = {trial.id: of(what, trial.settings, place) for trial in trials}
    return {trial: _too_large(found, place) for trial, found in made.items() if found.fit is Fit.TOO_LARGE}


def _too_large(found: Forecast, place: Where) -> str:
    needed, there = found.memory.allocated / GIB, place.capacity / GIB
    return f"predicted not to fit and not tried: it needs about {needed:.1f} GiB, and {there:.1f} GiB can be had"


def weights(what: Subject, trials: Iterable[Trial]) -> dict[str, float]:
    """By trial, what it takes compared with the others: seconds on some T4.

    What passes before the first step is left out: it is a guess, and a long one would make short and long trials alike.

    Raises:
        ModelError: the target modules are not the model's.
    """
    middle = Where("any", 0, predict.T4)
    return {trial.id: of(what, trial.settings, middle).seconds.high - predict.SETUP.high for trial in trials}


def total(forecasts: Iterable[Forecast]) -> Range:
    """Seconds of all of them."""
    each = [made.seconds for made in forecasts]
    return Range(sum(seconds.low for seconds in each), sum(seconds.high for seconds in each))
