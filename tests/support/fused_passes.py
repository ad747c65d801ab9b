"""Trains several trials in one pass of the fused engine and compares adapters, for tests on CPU and GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.core.settings import Scheduler, Settings
from harness.core.training_outcome import Step
from harness.engine.loading import Base
from harness.engine.tokenization import Row
from harness.engine.trainers.fused.training import FusedResult, train_together
from harness.engine.trainers.protocol import TrialInput
from tests.support.short_trainings import SHORT, rows_of

SIX = (
    SHORT,
    replace(SHORT, rank=8, alpha=4, learning_rate=1e-3, target_modules="all-linear", scheduler=Scheduler.COSINE,
            batch_size=2, epochs=1),
    replace(SHORT, rank=2, batch_size=1, gradient_accumulation=3, epochs=1.5, warmup=0.3,
            target_modules=("o_proj", "down_proj")),
    replace(SHORT, rank=16, batch_size=7, rslora=True, weight_decay=0.1,
            target_modules=("q_proj", "k_proj", "v_proj", "o_proj")),
    replace(SHORT, max_grad_norm=0.0, batch_size=3, epochs=1.25, scheduler=Scheduler.CONSTANT_WITH_WARMUP, warmup=2.0),
    replace(SHORT, rank=6, learning_rate=2e-3, batch_size=2, gradient_accumulation=2, max_grad_norm=0.1, epochs=1),
)  # fmt: skip
"""Six settings that differ in rank, alpha, learning rate, schedule, epochs, target modules and batch size."""


def together(base: Base, *settings: Settings, rows: Sequence[Row] = (), **more: Any) -> dict[str, FusedResult]:
    """Train a trial for each of the settings in one pass, and return the results by trial name.

    The name and the seed of a trial are its position, from 0.
    """
    trials = [TrialInput(str(number), rows or rows_of(base), own, number) for number, own in enumerate(settings)]
    return {one.name: one for one in train_together(base, trials, progress=lambda name, step, total: None, **more)}


def named(learned: FusedResult) -> dict[str, Any]:
    """Return the adapter's tensors by the names that they have in a PEFT model."""
    return {
        f"base_model.model.{name}.lora_{half}.default.weight": tensor
        for name, pair in learned.weights.items()
        for half, tensor in zip("AB", pair, strict=True)
    }


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the Euclidean distance of two adapters, divided by the norm of the second."""
    assert one.keys() == other.keys()
    apart = sum(float((one[name].cpu() - other[name].cpu()).double().square().sum()) for name in other)
    return math.sqrt(apart / sum(float(tensor.double().square().sum()) for tensor in other.values()))


def without_floats(steps: Sequence[Step]) -> list[Step]:
    """Return training steps without loss and gradient norm, which depend on rounding."""
    return [replace(step, loss=None, grad_norm=None) for step in steps]


def figures(steps: Sequence[Step]) -> list[float]:
    """Return the losses and gradient norms of all steps."""
    return [value for step in steps for value in (step.loss, step.grad_norm) if value is not None]
