"""The gate's statistical tests: is the later run worse on these cases, and which loss can the tests detect?

To add a test, write a function like `_over_cases` and list it in `DECLINE_TESTS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.analysis.statistics import (
    POWER,
    Scores,
    detectable,
    noise_of_difference,
    retraining_error,
    sign_flip,
    student,
)


def decline(before: Scores, after: Scores, rng: np.random.Generator, groups: Sequence[str] | None = None) -> float:
    """Return the one-sided p-value of the hypothesis that `after` is not worse than `before`.

    This is the smallest p-value of `DECLINE_TESTS`, times the number of tests (Bonferroni's correction).

    Args:
        before: scores of the earlier run, `(seeds, cases)`.
        after: scores of the later run on the same cases, `(seeds, cases)`.
        rng: generator for tests that draw at random.
        groups: the group of each case; cases of a group count as one cluster.
    """
    return min(1.0, len(DECLINE_TESTS) * min(test(before, after, rng, groups) for test in DECLINE_TESTS))


def _over_cases(before: Scores, after: Scores, rng: np.random.Generator, groups: Sequence[str] | None) -> float:
    """Test whether the means of the cases fell. This finds a small loss spread over many cases, even with one seed.

    Return the larger p-value of the sign-flip test and of Student's test of the mean, whose variance includes the noise
    of cases and of seeds. The sign-flip test alone would raise a false alarm when a single seed fails in every case.
    """
    flips = sign_flip(before, after, rng, groups)
    noise = noise_of_difference(before, after, groups)
    moved = float(after.mean() - before.mean())
    return max(flips, _student(noise.freedom, moved, math.sqrt(noise.variance)))


def _over_seeds(before: Scores, after: Scores, _rng: np.random.Generator, _groups: Sequence[str] | None) -> float:
    """Test whether the means of the seeds fell. This finds a loss in a few cases that fail under every seed."""
    freedom = len(before) + len(after) - 2
    moved = float(after.mean() - before.mean())
    return 1.0 if freedom < 1 else _student(freedom, moved, retraining_error(before, after))


DECLINE_TESTS = (_over_cases, _over_seeds)
"""The gate's tests for a loss, each with a one-sided p-value. If you add a test here, let `detectable_loss` take the
power of that test into account. No code outside this module depends on the number of tests."""


def _student(freedom: float, moved: float, error: float) -> float:
    """Return the probability of a change of the mean as low as `moved` or lower if the true change is zero."""
    if error <= 0:
        return 0.0 if moved < 0 else 1.0
    from scipy.special import stdtr

    return float(stdtr(freedom, moved / error))


def detectable_loss(before: Scores, after: Scores, *, alpha: float = 0.05, power: float = POWER) -> float:
    """Return the smallest loss on these cases, as a share, that `decline` finds with this power.

    With one seed in each run, only the test `_over_cases` counts.
    """
    freedom = len(before) + len(after) - 2
    moved = after.mean(axis=0) - before.mean(axis=0)
    flipping = float(np.abs(moved).mean()) - abs(float(moved.mean()))
    each = alpha / len(DECLINE_TESTS)
    by_cases = detectable(before.shape[1], max(0.0, flipping), alpha=each, power=power)
    if freedom < 1:
        return by_cases
    # A one-sided bound at 1 - each is the end of a two-sided interval at 1 - 2 * each. The same holds for the power.
    reach = student(freedom, 1 - 2 * each) + student(freedom, 2 * power - 1)
    error, share = retraining_error(before, after), float(before.mean())
    share = min(share, 1 - 1 / before.size)  # if all answers pass, assume that one failed
    found = 0.0
    for _ in range(20):  # a lower pass rate also varies more from seed to seed
        lower = max(0.5, share - found) if share > 0.5 else share
        growth = max(1.0, lower * (1 - lower) / (share * (1 - share))) if share > 0 else 1.0
        found = reach * error * math.sqrt((1 + growth) / 2)
    return min(1.0, by_cases, found)
