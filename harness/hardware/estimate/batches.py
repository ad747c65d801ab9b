"""Compute batches, padding and steps of a training from the lengths of its rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.settings import Settings


@dataclass(frozen=True)
class Batches:
    """The batches of a training. Rows are shuffled, so the number of tokens with padding is an expected value."""

    updates: int
    """Optimizer steps."""
    forwards: int
    """Number of batches over all epochs."""
    rows: int
    """Rows of a full batch."""
    longest: int
    """Tokens of the longest row. Every epoch has a batch that is padded to this length."""
    padded: bool
    """Whether rows of one batch may have different lengths, so that attention needs a mask."""
    unmasked_rows: int
    """Size of the largest batch that can consist of rows of the greatest length only. It needs no attention mask."""
    tokens: float
    """Tokens over all epochs, including padding."""
    labelled: float
    """Expected number of tokens with labels in the batch that has the most of them."""


def batches(settings: Settings, lengths: Sequence[int], labelled: Sequence[int] | None = None) -> Batches:
    """Compute the batches that transformers' Trainer makes from rows of `lengths` tokens, truncated to `max_length`.

    `labelled` are the numbers of tokens with labels of the rows, in the same order; None: all tokens have labels.
    """
    cut = sorted(min(length, settings.max_length) for length in lengths) or [settings.max_length]
    if settings.packing:
        cut = [settings.max_length] * math.ceil(sum(cut) / settings.max_length)
    size = min(settings.batch_size, len(cut))
    per_epoch = math.ceil(len(cut) / settings.batch_size)
    steps = updates(settings, len(cut))
    forwards = _forwards(steps, per_epoch, settings.gradient_accumulation)
    padded = len(cut) * expected_longest(cut, size)
    kept = _kept(settings, lengths, labelled) if labelled and not settings.packing else [cut[-1]] * len(cut)
    return Batches(
        updates=steps,
        forwards=forwards,
        rows=size,
        longest=cut[-1],
        padded=size > 1 and cut[0] < cut[-1],
        unmasked_rows=_unmasked_rows(size, len(cut) % size, cut.count(cut[-1])),
        tokens=padded * forwards / per_epoch,
        labelled=expected_most(kept, size, forwards),
    )


def _kept(settings: Settings, lengths: Sequence[int], labelled: Sequence[int]) -> list[int]:
    """Return the tokens with labels of each row after truncation, which cuts a row at its end."""
    cut = (max(0, length - settings.max_length) for length in lengths)
    return [max(0, own - less) for own, less in zip(labelled, cut, strict=True)]


def _unmasked_rows(size: int, rest: int, longest: int) -> int:
    """Return the size of the largest batch that can consist of the longest rows only, of which there are `longest`.

    A full batch has `size` rows, and the last batch of an epoch has `rest` rows.
    """
    return size if longest >= size else rest if longest >= rest else 0


def _forwards(steps: int, per_epoch: int, accumulation: int) -> int:
    """Return the number of batches in `steps` optimizer steps. The last step of an epoch may have fewer batches."""
    whole, left = divmod(steps, max(1, math.ceil(per_epoch / accumulation)))
    return whole * per_epoch + min(left * accumulation, per_epoch)


def updates(settings: Settings, rows: int) -> int:
    """Return the optimizer steps of a training as transformers' Trainer counts them. `rows`: rows after packing."""
    per_batch = math.ceil(rows / settings.batch_size)
    per_epoch = max(1, math.ceil(per_batch / settings.gradient_accumulation))
    return math.ceil(settings.epochs * per_epoch)


def expected_most(counts: Sequence[int], size: int, count: int) -> float:
    """Return the expected largest sum of `count` batches, each the sum of `size` of the counts.

    Sums of counts drawn without replacement are taken as normal (Cochran, Sampling Techniques, 3rd edition, theorem
    2.2). The expected largest of `count` normal values is Blom's approximation (Statistical Estimates and Transformed
    Beta-Variables, 1958). If single counts are far above the others, the result is up to 12% too low.
    """
    rows = len(counts)
    left = (rows - size) / (rows - 1) if rows > 1 else 0.0
    spread = statistics.pstdev(counts) * math.sqrt(size * left)
    highest = statistics.NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0
    return min(size * statistics.fmean(counts) + highest * spread, float(sum(sorted(counts)[-size:])))


def expected_longest(lengths: Sequence[int], size: int) -> float:
    """Return the expected length of the longest of `size` rows drawn without replacement. `lengths` ascend.

    The k-th smallest of n rows is the longest drawn row in C(k-1, size-1) of C(n, size) draws (David and Nagaraja,
    Order Statistics, 3rd edition, section 3.7).
    """
    draws = math.comb(len(lengths), size)
    return sum(length * math.comb(k, size - 1) / draws for k, length in enumerate(lengths))
