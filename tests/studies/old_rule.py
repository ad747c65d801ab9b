"""Judges a variant by the rule for losses, and by the rule that was used before, for comparison.

The old rule counted only the cases that the base model passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.analysis import losses, statistics
from harness.analysis.net_loss import net_loss
from harness.analysis.score_table import Pair
from harness.analysis.statistics import Scores
from harness.core.run_results import LossVerdict


def old_rule(base: Scores, variant: Scores, groups: Sequence[str] | None, margin: float) -> dict[str, Any]:
    """Return the loss and its upper one-sided 95% bound, in points, by the cases that the base model passed.

    `base` is `(1, cases)`, `variant` is `(seeds, cases)`; `margin` is in points. The variant was eligible (`keeps`) if
    the bound was below the margin, and said to lose too much (`loses`) if the loss reached it.
    """
    passed = base[0] > 0.5
    if not passed.any():
        return {"lost": None, "below": None, "verdict": str(LossVerdict.CANNOT_TELL)}
    own = [group for group, counts in zip(groups, passed, strict=True) if counts] if groups else None
    found = statistics.difference(base[:, passed], variant[:, passed], own, level=0.9)
    lost, below = -100 * found.value, -100 * found.low
    verdict = LossVerdict.LOSES if lost >= margin else LossVerdict.CANNOT_TELL
    word = LossVerdict.KEEPS if below < margin else verdict
    return {"lost": _points(lost), "below": _points(below), "verdict": str(word)}


def new_rule(base: Scores, variant: Scores, groups: Sequence[str], margin: float) -> dict[str, Any]:
    """Return the net loss in points of what the base model passes, its bounds, and the product's verdict.

    `low` and `high` are one-sided 95% bounds; `interval` is the two-sided 95% interval; `margin` is in points.
    """
    found = net_loss(base, variant, groups)
    wide = net_loss(base, variant, groups, level=losses.TWO_SIDED)
    verdict = losses.verdict(Pair(base, variant, tuple(groups)), wide, found, margin)
    if found is None or wide is None:
        return {"net": None, "low": None, "high": None, "interval": None, "verdict": str(verdict)}
    return {
        "net": _points(100 * found.value), "low": _points(100 * found.low), "high": _points(100 * found.high),
        "interval": [_points(100 * wide.low), _points(100 * wide.high)], "verdict": str(verdict),
    }  # fmt: skip


def _points(value: float) -> float | None:
    return round(value + 0.0, 1) if np.isfinite(value) else None
