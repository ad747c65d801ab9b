"""Shape and batches to seconds on a GPU: three speeds, and how often a training asks for each."""

from __future__ import annotations

from dataclasses import dataclass

from harness.predict.lengths import Batches
from harness.predict.shapes import ModelShape

PASSES = 3
"""Forward, the forward again that checkpointing costs, and backward: each dequantises every matrix once."""
ANSWER_BATCH = 16
"""Prompts that a GPU answers at once (harness.sweep)."""


@dataclass(frozen=True)
class Speed:
    """What a GPU does when it trains with QLoRA, measured or taken from its data sheet."""

    launch: float
    """Seconds that one pass through one layer takes however small it is: kernels being launched."""
    dequantise: float
    """Seconds for each parameter that is dequantised, written and read again."""
    flops: float
    """Floating-point operations a second in the matrix products."""


def training_seconds(shape: ModelShape, made: Batches, speed: Speed) -> float:
    """Of a training: launching and dequantising for every batch, products for every token.

    A product of a token with a matrix is 2 operations a parameter. The base's matrices are used three times (their own
    gradient is never wanted); the head twice; attention's two products of T x T are counted for the longest row.
    """
    batch = PASSES * (shape.layers * speed.launch + shape.quantised * speed.dequantise)
    attention = 4 * shape.layers * made.longest * shape.heads * shape.head_dim
    token = PASSES * (2 * shape.quantised + attention) + 2 * 2 * shape.vocabulary * shape.hidden
    return made.forwards * batch + made.tokens * token / speed.flops


def answering_seconds(shape: ModelShape, prompts: int, new_tokens: int, speed: Speed) -> float:
    """Of answering: each token of a batch of prompts is one pass through all layers, dequantising included."""
    rounds = -(-prompts // ANSWER_BATCH)
    return rounds * new_tokens * (shape.layers * speed.launch + shape.quantised * speed.dequantise)
