"""Predicts the times of training steps, for tests of how a GPU's speeds are measured."""

from __future__ import annotations

from dataclasses import replace

from harness.core.device_profiles import Speed
from harness.core.machine import Timing
from harness.core.settings import Settings
from harness.hardware.estimate import ModelShape, batches, training_seconds
from harness.hardware.estimate.predictions import public_shape


def step_seconds(of: Timing, speed: Speed) -> float:
    """Return the seconds that one optimizer step of the benchmark would take on a GPU with these speeds."""
    shape: ModelShape = replace(public_shape(of.shape), layers=of.layers)
    settings = Settings(batch_size=of.rows, epochs=1, max_length=of.length)
    return training_seconds(shape, batches(settings, [of.length] * of.rows), speed)
