"""The rule for a loss that was used before `harness.analysis.net_loss`, for comparison, and the words of both rules.

The old rule counted only the cases that the base model passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.analysis import statistics
from harness.analysis.net_loss import SeedVariance, least_passes, net_loss
from harness.analysis.statistics import Scores

KEEPS, LOSES, CANNOT_TELL = "keeps", "loses", "cannot tell"
TWO_SIDED = 0.975
"""Level of each one-sided bound of a two-sided 95% interval."""


def old_rule(base: Scores, variant: Scores, groups: Sequence[str] | None, margin: float) -> dict[str, Any]:
    """Return the loss and its upper one-sided 95% bound, in points, by the cases that the base model passed.

    `base` is `(1, cases)`, `variant` is `(seeds, cases)`; `margin` is in points. The variant was eligible (`keeps`) if
    the bound was below the margin, and said to lose too much (`loses`) if the loss reached it.
    """
    passed = base[0] > 0.5
    if not passed.any():
        return {"lost": None, "below": None, "verdict": CANNOT_TELL}
    own = [group for group, counts in zip(groups, passed, strict=True) if counts] if groups else None
    found = statistics.difference(base[:, passed], variant[:, passed], own, level=0.9)
    lost, below = -100 * found.value, -100 * found.low
    verdict = KEEPS if below < margin else LOSES if lost >= margin else CANNOT_TELL
    return {"lost": _points(lost), "below": _points(below), "verdict": verdict}


def new_rule(
    base: Scores, variant: Scores, groups: Sequence[str] | None, margin: float, seeds: SeedVariance | None = None
) -> dict[str, Any]:
    """Return the net loss in points of what the base model passes, its bounds, and the verdict at `margin` points.

    `low` and `high` are one-sided 95% bounds; `interval` is the two-sided 95% interval. If the base model passes fewer
    cases than even a variant without any change needs, the verdict is open, as in a run.
    """
    found = net_loss(base, variant, groups, seeds=seeds)
    wide = net_loss(base, variant, groups, level=TWO_SIDED, seeds=seeds)
    if found is None or wide is None:
        return {"net": None, "low": None, "high": None, "interval": None, "verdict": CANNOT_TELL}
    enough = base.mean(axis=0).sum() >= least_passes(margin / 100, groups, base.shape[1])
    verdict = KEEPS if 100 * found.high < margin else LOSES if 100 * found.low > margin else CANNOT_TELL
    return {
        "net": _points(100 * found.value), "low": _points(100 * found.low), "high": _points(100 * found.high),
        "interval": [_points(100 * wide.low), _points(100 * wide.high)], "verdict": verdict if enough else CANNOT_TELL,
    }  # fmt: skip


def _points(value: float) -> float | None:
    return round(value + 0.0, 1) if np.isfinite(value) else None
