"""Tests of predicted times: their growth with the work, a published time, and the fit of speeds to timed steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.device_profiles import Speed
from harness.core.settings import Settings
from harness.engine.calibration import BENCHMARKS
from harness.hardware.estimate import (
    SETUP,
    batches,
    fit_speeds,
    mixed_answering_seconds,
    pass_seconds,
    predict,
    training_seconds,
)
from harness.hardware.estimate.predictions import public_shape
from tests.support.model_shapes import LLAMA, QLORA
from tests.support.timed_steps import step_seconds


def test_the_published_time_on_a_t4_lies_in_the_range() -> None:
    """For Llama-2-7b on a T4, the published 1.61 s per sample (Alpaca, batches of 2) lies in the predicted range."""
    lengths = [90, 100, 110, 120, 130, 140, 160, 180, 220, 300] * 40
    settings = Settings(rank=16, batch_size=2, gradient_accumulation=4, epochs=1, max_length=2048)
    took = predict(LLAMA, settings, lengths).training
    assert took.low < 1.61 * len(lengths) < took.high


def test_time_grows_with_tokens_and_epochs() -> None:
    """Twice as many epochs take twice the predicted time, and longer rows take more time."""
    one, two = (predict(LLAMA, replace(QLORA, epochs=n), [128] * 30).training.low - SETUP.low for n in (1, 2))
    assert two == pytest.approx(2 * one)
    assert predict(LLAMA, replace(QLORA, epochs=1), [256] * 30).training.low > one


def test_a_pass_shares_launches_and_adds_products() -> None:
    """A pass of eight trials takes longer than one trial and less than eight; without room, it takes longer."""
    one, speed = batches(QLORA, [128] * 30), Speed(update=0.02, launch=1e-3, dequantise=20e-12, flops=20e12)
    alone = training_seconds(LLAMA, one, speed)
    roomy, narrow = (pass_seconds(LLAMA, [one] * 8, room, speed) for room in (10**6, 1))
    assert pass_seconds(LLAMA, [one], 10**6, speed) == pytest.approx(alone)
    assert alone < roomy < 8 * alone < narrow


def test_mixed_answers_take_as_long_as_their_tokens() -> None:
    """Twice as many answers, or answers twice as long, take twice the time; few answers take as long as one by one."""
    speed = Speed(update=0.02, launch=1e-3, dequantise=20e-12, flops=1e30)
    many = mixed_answering_seconds(LLAMA, 1000, 16, speed)
    assert mixed_answering_seconds(LLAMA, 2000, 16, speed) == pytest.approx(2 * many)
    assert mixed_answering_seconds(LLAMA, 1000, 32, speed) == pytest.approx(2 * many)
    assert mixed_answering_seconds(LLAMA, 1, 16, speed) == pytest.approx(mixed_answering_seconds(LLAMA, 100, 16, speed))


def test_known_speeds_are_found() -> None:
    """If step times are computed from known speeds, the fit to these times gives the known speeds."""
    true = Speed(update=0.02, launch=8e-4, dequantise=25e-12, flops=12e12)
    timed = [replace(each, seconds=step_seconds(each, true)) for each in BENCHMARKS]
    found, error = fit_speeds(timed, {each.shape: public_shape(each.shape) for each in timed})
    assert found.update == pytest.approx(true.update, rel=1e-3)
    assert found.launch == pytest.approx(true.launch, rel=1e-3)
    assert found.dequantise == pytest.approx(true.dequantise, rel=1e-3)
    assert found.flops == pytest.approx(true.flops, rel=1e-3)
    assert error < 1e-6
