"""Tests of the verdict on a change: improved or regressed only beyond the noise of cases and seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import sem

from harness.analysis import statistics
from harness.analysis.differences import adjusted_for_family, change, standard_error
from harness.analysis.score_table import Pair
from harness.analysis.statistics import Scores
from harness.core.run_results import Change, Verdict
from harness.core.suite import Role

MARGIN = 10.0


def judge(before: Scores, after: Scores) -> Change:
    groups = ("",) * before.shape[1]
    return change(Role.RETAIN, Pair(before, after, groups), MARGIN, np.random.default_rng(0))


def passes(cases: int, *lost: int) -> Scores:
    """Return scores with a row for each number in `lost`, which says how many of the cases fail in that row."""
    return np.array([[float(n >= many) for n in range(cases)] for many in lost])


def test_better_takes_several_seeds() -> None:
    """If there is only one training seed, even a large gain is inconclusive, and the reason asks for more seeds."""
    once = judge(passes(80, 80), passes(80, 0))
    assert (once.verdict, once.seed_noise, once.needed) == (Verdict.INCONCLUSIVE, None, None)
    assert "with one training seed" in once.reason
    assert "3 seeds" in once.reason
    thrice = judge(passes(80, 80), passes(80, 0, 1, 2))
    assert thrice.verdict is Verdict.IMPROVED
    assert "points more" in thrice.reason


def test_worse_is_said_beyond_both() -> None:
    """A drop under every seed is a regression; an equal mean drop that comes from one of three seeds is not."""
    steady, shaky = judge(passes(80, 0), passes(80, 20, 20, 20)), judge(passes(80, 0), passes(80, 60, 0, 0))
    assert (steady.points, shaky.points) == pytest.approx((-25, -25))
    assert steady.verdict is Verdict.REGRESSED
    assert shaky.verdict is Verdict.INCONCLUSIVE
    assert shaky.seed_noise is not None
    assert shaky.seed_noise > shaky.case_noise
    assert "more seeds would reduce it" in shaky.reason


def test_noises_are_told_apart() -> None:
    """If seeds do not differ, the noise of seeds is 0; if cases do not differ, the noise of cases is 0."""
    agreeing, parting = judge(passes(40, 0), passes(40, 8, 8)), judge(passes(40, 0), passes(40, 40, 0))
    assert agreeing.seed_noise == 0
    assert agreeing.case_noise == pytest.approx(100 * np.sqrt(0.2 * 0.8 / 40))
    assert parting.case_noise == 0
    assert parting.seed_noise == pytest.approx(50)


@pytest.mark.parametrize(("spread", "cases", "seeds"), [(0.0, 80, 3), (0.05, 80, 3), (0.12, 200, 2)])
def test_no_change_is_seldom_called_one(spread: float, cases: int, seeds: int) -> None:
    """If the true difference is 0, the interval excludes 0 in at most 8% of 500 simulations.

    In longer simulations the rate was 6.7% for two seeds that differ much more than the cases, and 1 to 4% otherwise.
    """
    rng = np.random.default_rng([int(100 * spread), cases])
    alarms = 0
    for _ in range(500):
        hard = rng.uniform(0.4, 0.6, cases)
        before = (rng.random((1, cases)) < hard).astype(float)
        after = (rng.random((seeds, cases)) < np.clip(hard + rng.normal(0, spread, (seeds, 1)), 0, 1)).astype(float)
        found = statistics.difference(before, after)
        alarms += not found.low <= 0 <= found.high
    assert alarms / 500 <= 0.08


def test_unchanged_takes_many_cases() -> None:
    """If nothing differs, the verdict is UNCHANGED for many cases and INCONCLUSIVE for few.

    The reason gives the interval and, if there are few cases, the number of cases needed.
    """
    many, few = judge(passes(200, 0), passes(200, 0, 0)), judge(passes(20, 0), passes(20, 0, 0))
    assert many.verdict is Verdict.UNCHANGED
    assert "within the noise (-1.9 to 1.9 points with 95% confidence)" in many.reason
    assert few.verdict is Verdict.INCONCLUSIVE
    assert f"About {few.needed} cases" in few.reason


def test_a_loss_of_the_margin_is_not_called_unchanged() -> None:
    """If seeds differ so much that the interval includes a loss of the margin, the change is INCONCLUSIVE."""
    found = judge(passes(200, 0), passes(200, 2, 8, 20))
    assert found.low < -10
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "more seeds would reduce it" in found.reason


def test_a_change_counts_flips_both_ways() -> None:
    """A change has the mean numbers of cases that were fixed and broken, over seeds."""
    before = passes(80, 10)
    after = np.roll(passes(80, 10, 10), 4, axis=1)
    found = judge(before, after)
    assert (found.points, found.fixed, found.broken) == (0, 4, 4)


def test_groups_are_named() -> None:
    """If some cases belong to one group, the reason gives the number of groups."""
    groups = tuple(f"g{n // 4}" for n in range(80))
    found = change(Role.RETAIN, Pair(passes(80, 0), passes(80, 20, 20), groups), MARGIN, np.random.default_rng(0))
    assert found.clusters == 20
    assert "over 80 cases in 20 groups and 2 training seeds" in found.reason


def test_a_true_loss_of_the_margin_is_seldom_called_unchanged() -> None:
    """If the true loss is as large as the margin, the verdict is UNCHANGED in at most 5% of simulations."""
    rng, called = np.random.default_rng(3), 0
    for _ in range(100):
        shares = np.clip(rng.normal(0.9, 0.05, (3, 1)), 0, 1)
        called += judge(passes(200, 0), (rng.random((3, 200)) < shares).astype(float)).verdict is Verdict.UNCHANGED
    assert called <= 5


def test_the_number_that_would_do_does() -> None:
    """If a suite has the number of cases that an inconclusive verdict suggested, the verdict is conclusive."""
    few = judge(passes(20, 1), passes(20, 1, 1))
    assert few.needed
    assert judge(passes(few.needed, 1), passes(few.needed, 1, 1)).verdict is Verdict.UNCHANGED


def test_one_of_many_may_look_worse() -> None:
    """If one of twelve variants has a drop that would be significant for a single variant, it is INCONCLUSIVE."""
    drop, same = judge(passes(80, 0), passes(80, 5, 5)), judge(passes(80, 0), passes(80, 0, 0))
    assert drop.verdict is Verdict.REGRESSED
    alone, together = adjusted_for_family([drop])[0], adjusted_for_family([drop] + [same] * 11)[0]
    assert alone.verdict is Verdict.REGRESSED
    assert together.verdict is Verdict.INCONCLUSIVE
    assert "chance among 12 variants" in together.reason


def test_standard_error_is_of_the_difference() -> None:
    """The standard error of a difference equals scipy's standard error of the mean of the per-case differences."""
    before, after = np.ones((1, 40)), np.ones((1, 40))
    before[0, :2] = after[0, 2:4] = 0
    expected = 100 * float(sem((after - before)[0]))
    assert standard_error(Pair(before, after, ("",) * 40)) == pytest.approx(expected)


@pytest.mark.parametrize("cases", [2, 10, 300])
def test_one_flip_is_one_standard_error(cases: int) -> None:
    """If a single case changed, the difference equals its standard error, regardless of the number of cases."""
    found = Pair(passes(cases, 1), passes(cases, 0), ("",) * cases)
    assert standard_error(found) == pytest.approx(100 / cases)
