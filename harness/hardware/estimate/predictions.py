"""Predict memory and time of trials from a model's name, a suite and a GPU's profile, without torch or a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.core.conversations import with_system_prompt
from harness.core.device_profiles import REFERENCE, SPEEDS, Profile, Speed, profile_for
from harness.core.errors import ModelError
from harness.core.machine import Calibration
from harness.core.model import ModelRef
from harness.core.quantities import gib
from harness.core.rehearsal import DECODING, Rehearsal
from harness.core.settings import Settings, Trial, unpredictable
from harness.core.suite import Example, Message, Split, Suite
from harness.core.units import DeviceKind
from harness.core.wording import one
from harness.hardware import estimate
from harness.hardware.estimate import Batches, Fit, ModelShape, Prediction, Range
from harness.hardware.estimate.passes import pass_tokens
from harness.hardware.gpu import Gpu, gpu
from harness.models.foreign_files import read_object
from harness.models.hub import Hub
from harness.models.resolving import find_description, shape_in
from harness.models.token_lengths import Lengths, lengths
from harness.storage.cache import Cache

CALIBRATED = 0.15
"""Smallest relative error assumed for predicted times on a calibrated GPU, even if the calibration's error is less."""


@dataclass(frozen=True)
class Workload:
    """The work of a trial: the model's shape, the tokens of each training row, and the answers to generate."""

    model: str
    shape: ModelShape
    lengths: Lengths
    prompts: int
    new_tokens: int
    notice: str = ""
    """A sentence about the source of the shape; empty if the source is the model's own configuration."""
    remarks: tuple[str, ...] = ()
    """Sentences about the model that users must know."""
    rehearsal: tuple[int, ...] = ()
    """The number of tokens of each rehearsal row that a trial may draw, the longest first."""

    def tokens(self, settings: Settings) -> tuple[int, ...]:
        """Return the tokens of each row of a trial. Its seed may draw any rehearsal rows, so the longest count."""
        return (*self.lengths.tokens, *self.rehearsal[: settings.rehearsal])

    def supervised(self, settings: Settings) -> tuple[int, ...]:
        """Return the tokens with labels of each row of a trial. Each answer of a rehearsal row may have the most."""
        answers = (min(size, DECODING.max_new_tokens) for size in self.rehearsal[: settings.rehearsal])
        return (*self.lengths.supervised, *answers)


@dataclass(frozen=True)
class TargetGpu:
    """The GPU to predict for: its memory, and its fastest and slowest assumed speeds."""

    device: str
    capacity: int
    """Bytes that PyTorch's allocator can use."""
    speeds: tuple[Speed, Speed] | None
    """Fastest and slowest assumed speeds; None without a calibration and without a profile for the GPU."""
    profile: Profile | None = None
    """The GPU's profile, if it has one."""
    calibrated: str = ""
    """Time of the calibration; empty if the GPU is not calibrated."""

    @property
    def claim(self) -> str:
        """State how reliable the predicted times are."""
        if self.speeds is None:
            return f"time is not predicted for {one(self.device)}: run `harness doctor --calibrate` there (two minutes)"
        if self.calibrated:
            return f"time calibrated on {one(self.device)} on {self.calibrated[:10]}"
        untested = one((self.profile or REFERENCE).title)
        return f"time not validated on {untested}: run `harness doctor --calibrate` there (two minutes)"


def named_workload(model: str, suite: Suite, rehearsal: Rehearsal | None = None, *, hub: Hub | None = None) -> Workload:
    """Describe the work of a trial on the model with this name. Weights are not downloaded from the Hub.

    If the model cannot be found, the shape of a public model whose name is part of `model` is used.

    Raises:
        ModelError: the model was not found, or there is no prediction for its architecture.
    """
    try:
        found = find_description(model, hub=hub)
    except ModelError:
        known = shape_in(model) if not Path(model).exists() else None
        if known is None:
            raise
        notice = f"{model} was not found; the prediction uses the shape of {known}"
        return _workload(model, suite, rehearsal, find_description(known).config, None, notice)
    return replace(_workload(model, suite, rehearsal, found.config, found.tokenizer), remarks=found.remarks)


def public_shape(name: str) -> ModelShape:
    """Return the shape of the model that `shape:NAME` stands for."""
    return estimate.shape_of(find_description(f"shape:{name}").config)


def resolved_workload(model: ModelRef, suite: Suite, rehearsal: Rehearsal | None = None) -> Workload:
    """Describe the work of a trial on a model whose files are on this machine.

    Raises:
        ModelError: there is no prediction for the model's architecture.
    """
    config = read_object(Path(model.path) / "config.json")
    return _workload(model.name, suite, rehearsal, config, Path(model.tokenizer or model.path))


def _workload(
    model: str,
    suite: Suite,
    rehearsal: Rehearsal | None,
    config: Mapping[str, Any],
    tokenizer: Path | None,
    notice: str = "",
) -> Workload:
    return Workload(
        model,
        estimate.shape_of(config),
        lengths(suite.examples, tokenizer),
        len(suite.of(Split.MAIN)) * suite.repeats,
        suite.decoding.max_new_tokens,
        notice,
        rehearsal=_rehearsed(rehearsal, suite, tokenizer) if rehearsal else (),
    )


def _rehearsed(rehearsal: Rehearsal, suite: Suite, tokenizer: Path | None) -> tuple[int, ...]:
    """Return the tokens of the rehearsal rows, the longest first. Until there are answers, each has the most tokens."""
    if rehearsal.answers:
        sizes = [row.tokens for row in rehearsal.answers[0].rows]
    else:
        shortest = Message("assistant", ".")
        asked = (with_system_prompt(suite.system_prompt, (Message("user", text),)) for text in rehearsal.prompts)
        counts = lengths([Example((*messages, shortest)) for messages in asked], tokenizer).tokens
        sizes = [size + DECODING.max_new_tokens for size in counts]
    return tuple(sorted(sizes, reverse=True))


def target_gpu(profile: Profile, cache: Cache, *, found: Gpu | None = None) -> TargetGpu | None:
    """Return the GPU to predict for; None for the profile `cpu`, which has no predictions.

    The profile of a GPU stands for that GPU. The profile `auto` stands for this machine's GPU, or for the reference GPU
    if this machine has none. `found` replaces the GPU that the driver reports.
    """
    if profile.kind is DeviceKind.CPU:
        return None
    here, chosen = found or gpu(), profile if profile.kind else None
    if here is None:
        return _calibrated(_of_profile(chosen or REFERENCE), cache)
    known = chosen or profile_for(here.name)
    return _calibrated(_of_profile(known, here.name) if known else TargetGpu(here.name, here.capacity, None), cache)


def _of_profile(profile: Profile, here: str = "") -> TargetGpu:
    """Return the GPU of a profile. If this machine has that GPU, its name is `here`, the name that the driver gives."""
    device = here if profile.is_device(here) else profile.device
    return TargetGpu(device, profile.memory_cap, profile.speeds, profile)


def _calibrated(target: TargetGpu, cache: Cache) -> TargetGpu:
    known = cache.calibration(target.device)
    return replace(target, speeds=_speed_range(known), calibrated=known.made) if known else target


def _speed_range(known: Calibration) -> tuple[Speed, Speed]:
    """Return the fastest and the slowest speeds that are consistent with the calibrated speeds and their error."""
    off = max(known.error, CALIBRATED)
    fastest, slowest = (_scaled(known, factor) for factor in (1 / (1 + off), 1 + off))
    return fastest, slowest


def _scaled(known: Calibration, factor: float) -> Speed:
    return Speed(known.update * factor, known.launch * factor, known.dequantise * factor, known.flops / factor)


def predict_trial(workload: Workload, settings: Settings, target: TargetGpu) -> Prediction:
    """Predict memory and time of a trial with these settings.

    If the target's speeds are unknown, a T4's speeds are used. The predicted times then only show the order of trials.

    Raises:
        ModelError: one of the target modules is not a module of the model.
    """
    return estimate.predict(
        workload.shape,
        settings,
        workload.tokens(settings),
        workload.supervised(settings),
        capacity=target.capacity,
        prompts=workload.prompts,
        new_tokens=workload.new_tokens,
        speeds=target.speeds or SPEEDS,
    )


def predicted_oom(workload: Workload, trials: Iterable[Trial], target: TargetGpu) -> dict[str, str]:
    """Return the ids of the trials that are predicted to run out of memory, each with a sentence that explains why.

    Trials with settings for which memory is not predicted are not among them.

    Raises:
        ModelError: one of the target modules is not a module of the model.
    """
    known = [trial for trial in trials if not unpredictable(trial.settings)]
    made = {trial.id: predict_trial(workload, trial.settings, target) for trial in known}
    return {trial: _too_large(found, target) for trial, found in made.items() if found.fit is Fit.TOO_LARGE}


def _too_large(found: Prediction, target: TargetGpu) -> str:
    needed, available = gib(found.memory.allocated), gib(target.capacity)
    return f"predicted not to fit and not tried: it needs about {needed}, and {available} can be had"


def relative_costs(workload: Workload, trials: Iterable[Trial]) -> dict[str, float]:
    """Return the relative cost of each trial: its predicted seconds on a T4, without the setup before the first step.

    The setup is left out because its time is a rough guess that would make the costs of short trials nearly equal.

    Raises:
        ModelError: one of the target modules is not a module of the model.
    """
    t4 = TargetGpu("any", 0, SPEEDS)
    seconds = {trial.id: predict_trial(workload, trial.settings, t4).seconds.high for trial in trials}
    return {trial: high - estimate.SETUP.high for trial, high in seconds.items()}


def grid_seconds(
    workload: Workload,
    passes: Sequence[Sequence[Trial]],
    answers: int,
    target: TargetGpu,
    shares: Mapping[str, float] = MappingProxyType({}),
) -> Range:
    """Predict the seconds of a worker that runs passes of trials and gives this number of answers, models together.

    `shares` has the share of its epochs that a variant is trained, by id; without one, it is trained to its end. An
    answer is taken to be as long as those of the suite's training rows in the mean. The time to start the worker is
    that of a setup, and each pass has the least setup.

    Raises:
        ModelError: one of the target modules is not a module of the model.
    """
    supervised = workload.lengths.supervised
    mean = min(workload.new_tokens, sum(supervised) / max(1, len(supervised)))
    found = []
    for speed, start in zip(target.speeds or SPEEDS, (estimate.SETUP.low, estimate.SETUP.high), strict=True):
        seconds = start + estimate.mixed_answering_seconds(workload.shape, answers, mean, speed)
        for some in passes:
            quantization = some[0].settings.quantization
            room = pass_tokens(workload.shape, quantization, DeviceKind.CUDA, target.capacity)
            made = [_part_of(workload, trial.settings, shares.get(trial.variant, 1.0)) for trial in some]
            seconds += estimate.SETUP.low + estimate.pass_seconds(workload.shape, made, room, speed)
        found.append(seconds)
    return Range(*found)


@cache
def _part_of(workload: Workload, settings: Settings, share: float) -> Batches:
    made = estimate.batches(settings, workload.tokens(settings), workload.supervised(settings))
    updates, forwards = (math.ceil(share * each) for each in (made.updates, made.forwards))
    return replace(made, updates=updates, forwards=forwards, tokens=share * made.tokens)


def total_seconds(predictions: Iterable[Prediction]) -> Range:
    """Return the sum of the predicted seconds."""
    each = [made.seconds for made in predictions]
    return Range(sum(seconds.low for seconds in each), sum(seconds.high for seconds in each))
