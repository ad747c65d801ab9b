"""Compute batches, padding and steps of a training from the lengths of its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.settings import Settings


@dataclass(frozen=True)
class Batches:
    """A training's batches. Rows are shuffled, so the padded length of a batch is an expected value."""

    updates: int
    """Optimizer steps."""
    forwards: int
    """Number of batches over all epochs."""
    rows: int
    """Rows of a full batch."""
    longest: int
    """Tokens of the longest row: every epoch has a batch that is padded to it."""
    padded: bool
    """Whether rows of one batch may differ in length, so that attention needs a mask."""
    alike: int
    """Rows of the largest batch that may be of the longest rows alone, and so without a mask."""
    tokens: float
    """Tokens over all epochs, including padding."""


def batches(settings: Settings, lengths: Sequence[int]) -> Batches:
    """The batches that transformers' Trainer makes of rows of `lengths` tokens, each truncated to `max_length`."""
    cut = sorted(min(length, settings.max_length) for length in lengths) or [settings.max_length]
    if settings.packing:
        cut = [settings.max_length] * math.ceil(sum(cut) / settings.max_length)
    size = min(settings.batch_size, len(cut))
    per_epoch = math.ceil(len(cut) / settings.batch_size)
    steps = updates(settings, len(cut))
    forwards = _forwards(steps, per_epoch, settings.gradient_accumulation)
    padded = len(cut) * expected_longest(cut, size)
    return Batches(
        updates=steps,
        forwards=forwards,
        rows=size,
        longest=cut[-1],
        padded=size > 1 and cut[0] < cut[-1],
        alike=_alike(size, len(cut) % size, cut.count(cut[-1])),
        tokens=padded * forwards / per_epoch,
    )


def _alike(size: int, rest: int, longest: int) -> int:
    """Of batches of `size` rows, and one of the `rest` that is left over, where so many rows are `longest`."""
    return size if longest >= size else rest if longest >= rest else 0


def _forwards(steps: int, per_epoch: int, accumulation: int) -> int:
    """Batches of so many optimizer steps: an epoch's last step may be of fewer, and part of an epoch is whole steps."""
    whole, left = divmod(steps, max(1, math.ceil(per_epoch / accumulation)))
    return whole * per_epoch + min(left * accumulation, per_epoch)


def updates(settings: Settings, rows: int) -> int:
    """Optimizer steps of a training on `rows` rows, as transformers' Trainer counts them (without packing)."""
    per_batch = math.ceil(rows / settings.batch_size)
    per_epoch = max(1, math.ceil(per_batch / settings.gradient_accumulation))
    return math.ceil(settings.epochs * per_epoch)


def expected_longest(lengths: Sequence[int], size: int) -> float:
    """Mean of the longest of `size` rows drawn without replacement; `lengths` ascend.

    The k-th smallest of n is the longest of the drawn ones in C(k-1, size-1) of C(n, size) draws (David and Nagaraja,
    Order Statistics, 3rd edition, section 3.7).
    """
    draws = math.comb(len(lengths), size)
    return sum(length * math.comb(k, size - 1) / draws for k, length in enumerate(lengths))
