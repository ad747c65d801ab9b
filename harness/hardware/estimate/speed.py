"""Predict seconds on a GPU from four speeds and from how often a training needs each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.core.device_profiles import Speed
from harness.core.machine import Timing
from harness.hardware.estimate.batches import Batches
from harness.models.architecture import ModelShape

PASSES = 3
"""Forward, the forward again that checkpointing costs, and backward: each dequantises every matrix once."""
ANSWER_BATCH = 16
"""Prompts that a GPU answers at once (harness.runner.sweep)."""


def training_seconds(shape: ModelShape, made: Batches, speed: Speed) -> float:
    """Seconds of a training: launching and dequantising for every batch, matrix products for every token.

    A product of a token with a matrix is 2 operations a parameter. The base's matrices are used three times (their own
    gradient is never wanted); the head twice; attention's two products of T x T are counted for the longest row.
    """
    batch = PASSES * (shape.layers * speed.launch + shape.quantised * speed.dequantise)
    products = made.tokens * _per_token(shape, made.longest) / speed.flops
    return made.updates * speed.update + made.forwards * batch + products


def _per_token(shape: ModelShape, length: int) -> float:
    """Floating-point operations of training on one token of a row of `length`."""
    attention = 4 * shape.layers * length * shape.heads * shape.head_dim
    return PASSES * (2 * shape.quantised + attention) + 2 * 2 * shape.vocabulary * shape.hidden


def answering_seconds(shape: ModelShape, prompts: int, new_tokens: int, speed: Speed) -> float:
    """Seconds of answering: each token of a batch of prompts is one pass through all layers, with dequantising."""
    rounds = -(-prompts // ANSWER_BATCH)
    return rounds * new_tokens * (shape.layers * speed.launch + shape.quantised * speed.dequantise)


def fitted(timings: Sequence[Timing], shapes: Mapping[str, ModelShape]) -> tuple[Speed, float]:
    """The speeds that fit measured steps best, and their largest relative error on these steps.

    Least squares of relative errors, none of the four below zero (Lawson and Hanson, Solving Least Squares Problems,
    1974, chapter 23).
    """
    import numpy as np
    from scipy.optimize import nnls

    parts = np.array([_parts(each, replace(shapes[each.shape], layers=each.layers)) for each in timings])
    seconds = np.array([each.seconds for each in timings])
    scale = np.maximum(parts.max(axis=0), 1e-300)
    found, _ = nnls(parts / scale / seconds[:, None], np.ones(len(timings)))
    update, launch, dequantise, product = found / scale
    error = float(np.max(np.abs(parts @ (found / scale) / seconds - 1)))
    return Speed(float(update), float(launch), float(dequantise), 1 / max(float(product), 1e-30)), error


def _parts(step: Timing, shape: ModelShape) -> tuple[float, float, float, float]:
    """How often one optimizer step needs each of the four speeds."""
    operations = step.rows * step.length * _per_token(shape, step.length)
    return 1.0, float(PASSES * shape.layers), float(PASSES * shape.quantised), operations
