"""Predict the seconds of training and answering on a GPU from its four speeds (`Speed`) and counts of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.core.device_profiles import Speed
from harness.core.machine import Timing
from harness.hardware.estimate.batches import Batches
from harness.models.architecture import ModelShape

PASSES = 3
"""Passes of a training step: forward, forward again (gradient checkpointing) and backward. Each pass dequantises every
matrix once."""
ANSWER_BATCH = 16
"""Number of prompts in a generation batch on a GPU (harness.runner.jobs)."""

MIXED_ROWS = 128
"""Number of prompts that are answered at a time if several adapters answer together
(harness.engine.generation.continuous_batching)."""


def training_seconds(shape: ModelShape, made: Batches, speed: Speed) -> float:
    """Return the seconds of a training: updates, kernel launches, dequantisation and matrix products.

    Multiplying a token by a matrix takes 2 operations per parameter. Each token is multiplied three times by the
    base's matrices (they are frozen, so there is no product for their own gradient), and twice by the head. The two
    T x T products of attention are counted at the length of the longest row.
    """
    batch = PASSES * (shape.layers * speed.launch + shape.quantised * speed.dequantise)
    products = made.tokens * _per_token(shape, made.longest) / speed.flops
    return made.updates * speed.update + made.forwards * batch + products


def pass_seconds(shape: ModelShape, trials: Sequence[Batches], room: int, speed: Speed) -> float:
    """Return the seconds of a pass: trainings that share each pass over the base model.

    They share updates, kernel launches and dequantisation, and each adds its own matrix products. `room` is the largest
    number of padded tokens of a forward pass; if the batches of all trials have more, they take several.
    """
    forwards = max(max(made.forwards for made in trials), -(-sum(made.tokens for made in trials) // room))
    batch = PASSES * (shape.layers * speed.launch + shape.quantised * speed.dequantise)
    products = sum(made.tokens * _per_token(shape, made.longest) for made in trials) / speed.flops
    return max(made.updates for made in trials) * speed.update + forwards * batch + products


def _per_token(shape: ModelShape, length: int) -> float:
    """Return the floating-point operations to train on one token of a row of `length` tokens."""
    attention = 4 * shape.layers * length * shape.heads * shape.head_dim
    return PASSES * (2 * shape.quantised + attention) + 2 * 2 * shape.vocabulary * shape.hidden


def answering_seconds(shape: ModelShape, prompts: int, new_tokens: int, speed: Speed) -> float:
    """Return the seconds to answer prompts. Every new token of a batch takes one forward pass through all layers."""
    generation_batches = -(-prompts // ANSWER_BATCH)
    return generation_batches * new_tokens * (shape.layers * speed.launch + shape.quantised * speed.dequantise)


def mixed_answering_seconds(shape: ModelShape, answers: int, tokens: float, speed: Speed) -> float:
    """Return the seconds to answer with several adapters in one batch, which has new prompts as soon as answers end.

    `tokens` is the mean number of tokens of an answer. Each is multiplied by the base's matrices and the head.
    """
    steps = max(answers / MIXED_ROWS, 1) * tokens
    products = 2 * (shape.quantised + shape.vocabulary * shape.hidden) * answers * tokens / speed.flops
    return steps * (shape.layers * speed.launch + shape.quantised * speed.dequantise) + products


def fit_speeds(timings: Sequence[Timing], shapes: Mapping[str, ModelShape]) -> tuple[Speed, float]:
    """Fit the four speeds to timed steps. Return them, and the largest relative error on these steps.

    The fit minimises the sum of the squared relative errors, without negative speeds (Lawson and Hanson,
    Solving Least Squares Problems, 1974, chapter 23).
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
    """Return the factors of the four speeds in one step: updates, launches, dequantised parameters, operations."""
    operations = step.rows * step.length * _per_token(shape, step.length)
    return 1.0, float(PASSES * shape.layers), float(PASSES * shape.quantised), operations
