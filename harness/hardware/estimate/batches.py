"""Compute batches, padding and steps of a training from the lengths of its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import GridError, Place
from harness.core.settings import Plan, Scheduler, Settings
from harness.core.suite import Suite
from harness.core.wording import plural


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
    supervised: float
    """Expected number of tokens with labels in a batch that holds the longest row. The loss needs logits of these."""
    tokens: float
    """Tokens over all epochs, including padding."""


def batches(settings: Settings, lengths: Sequence[int], supervised: Sequence[int] | None = None) -> Batches:
    """Compute the batches that transformers' Trainer makes from rows of `lengths` tokens, truncated to `max_length`.

    `supervised` are the tokens with labels of each row; None means that they are not known, and all are counted. Those
    behind `max_length` are not known either: of a truncated row, as many as fit are counted.
    """
    most = settings.max_length
    given = zip(lengths, lengths if supervised is None else supervised, strict=True)
    rows = sorted((min(length, most), min(labels, length, most)) for length, labels in given) or [(most, most)]
    if settings.packing:
        tokens, labels = (sum(column) for column in zip(*rows, strict=True))
        rows = [(most, round(most * labels / tokens))] * math.ceil(tokens / most)
    cut = [length for length, _ in rows]
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
        unmasked_rows=_unmasked_rows(size, len(cut) % size, cut.count(cut[-1])),
        supervised=_supervised([labels for _, labels in rows], size),
        tokens=padded * forwards / per_epoch,
    )


def _supervised(labels: Sequence[int], size: int) -> float:
    """Return the expected number of labels in a batch of the last row and `size` - 1 rows drawn from the others."""
    *others, last = labels
    return last + (size - 1) * sum(others) / max(1, len(others))


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


def check_steps(suite: Suite, plan: Plan) -> None:
    """Check that warmup, `num_decay_steps` and restarts of each schedule fit into the steps of the training.

    With packing, the training has at most as many steps as without, which are counted here.

    Raises:
        GridError: they do not fit.
    """
    for variant in plan.variants:
        steps = updates(variant.settings, len(suite.examples) + variant.settings.rehearsal)
        if found := _does_not_fit(variant.settings, steps):
            what, remedy = found
            place = Place(str(Path(suite.folder) / "grids" / f"{plan.grid}.yaml"))
            raise GridError(f"{variant.name}: {what}", remedy=f"{remedy}, or raise epochs.", place=place)


def _does_not_fit(settings: Settings, steps: int) -> tuple[str, str] | None:
    """Return which phases of a schedule have more steps than the training, and the remedy; None if they fit."""
    warmup = math.ceil(settings.warmup * (steps if settings.warmup < 1 else 1))
    options, training = dict(settings.lr_scheduler_kwargs), f"{plural(steps, 'step')} of the training"
    decay, cycles = int(options.get("num_decay_steps", 0)), options.get("num_cycles", 1)
    if warmup > steps:
        return f"{warmup} of warmup are more than the {training}", f"Write warmup: {steps} or less"
    left = steps - warmup
    if decay > left:
        # transformers would begin in the middle of the decay
        remedy = (
            f"Write num_decay_steps: {left} or less"
            if left
            else f"Write warmup: 0 and num_decay_steps: {steps} or less"
        )
        return f"{warmup} of warmup and {decay} of decay are more than the {training}", remedy
    if settings.scheduler is Scheduler.COSINE_WITH_RESTARTS and float(cycles) > max(1, left):
        what = f"num_cycles: {cycles:g} are more restarts than the {plural(left, 'step')} after warmup"
        return what, f"Write num_cycles: {max(1, left)} or less"
    return None


def expected_longest(lengths: Sequence[int], size: int) -> float:
    """Return the expected length of the longest of `size` rows drawn without replacement. `lengths` ascend.

    The k-th smallest of n rows is the longest drawn row in C(k-1, size-1) of C(n, size) draws (David and Nagaraja,
    Order Statistics, 3rd edition, section 3.7).
    """
    draws = math.comb(len(lengths), size)
    return sum(length * math.comb(k, size - 1) / draws for k, length in enumerate(lengths))
