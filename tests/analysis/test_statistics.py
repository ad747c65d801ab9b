"""Tests that intervals and tests keep their error rates, and agree with other packages or with their definitions."""

from __future__ import annotations

import math
from itertools import combinations, product
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, bootstrap, permutation_test

from harness.analysis import statistics
from harness.analysis.statistics import Scores

Z95 = NormalDist().inv_cdf(0.975)
DRAWS = 2_000


def paired(rng: np.random.Generator, cases: int, lost: float, won: float, both: float) -> tuple[Scores, Scores]:
    """Draw scores of cases before and after a change, given the shares lost, won and passed both times."""
    kinds = rng.choice(4, size=cases, p=[both, lost, won, 1 - both - lost - won])
    return (kinds <= 1).astype(float)[None], ((kinds == 0) | (kinds == 2)).astype(float)[None]


# --- Wilson ------------------------------------------------------------------------------------------------------


def coverage(cases: int, share: float) -> float:
    """Return the exact probability that Wilson's interval contains the true share."""
    held = [low <= share <= high for low, high in (statistics.wilson(k / cases, cases, Z95) for k in range(cases + 1))]
    weights = [math.comb(cases, k) * share**k * (1 - share) ** (cases - k) for k in range(cases + 1)]
    return sum(weight for weight, inside in zip(weights, held, strict=True) if inside)


@pytest.mark.parametrize(("cases", "least"), [(10, 0.90), (40, 0.925), (200, 0.93)])
def test_wilson_covers_what_it_says(cases: int, least: float) -> None:
    """For true shares of 1 to 99%, Wilson's 95% interval contains the share with a probability of about 95%.

    The mean of the exact probabilities is 94.5 to 96%, and the smallest is at least `least`.
    """
    found = [coverage(cases, share / 100) for share in range(1, 100)]
    assert 0.945 <= sum(found) / len(found) <= 0.96
    assert min(found) >= least


@pytest.mark.parametrize(("passed", "cases"), [(0, 10), (1, 10), (5, 10), (37, 40), (200, 200)])
def test_wilson_equals_scipy(passed: int, cases: int) -> None:
    """Wilson's interval equals scipy's."""
    reference = binomtest(passed, cases).proportion_ci(0.95, method="wilson")
    assert statistics.wilson(passed / cases, cases, Z95) == pytest.approx((reference.low, reference.high), abs=1e-12)


# --- differences -------------------------------------------------------------------------------------------------


def test_newcombe_is_the_published_one() -> None:
    """The interval of a difference equals the example that Newcombe (1998) published for his method 10."""
    low, high = statistics.newcombe((36, 12, 2, 0), Z95)
    assert (-high, -low) == pytest.approx((0.0569, 0.3404), abs=1e-4)


@pytest.mark.parametrize("cases", [40, 200])
@pytest.mark.parametrize("discordance", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("loss", [0.5, 1.0])
def test_difference_intervals_cover(cases: int, discordance: float, loss: float) -> None:
    """The 95% interval of a difference contains the true value in at least 93% of simulated pairs."""
    rng = np.random.default_rng([cases, int(100 * discordance), int(10 * loss)])
    lost, won = discordance * loss, discordance * (1 - loss)
    held = 0
    for _ in range(DRAWS):
        found = statistics.difference(*paired(rng, cases, lost, won, 0.8 * (1 - discordance)))
        held += found.low - 1e-12 <= won - lost <= found.high + 1e-12
    assert held / DRAWS >= 0.93


@pytest.mark.parametrize(("spread", "seed_spread"), [(0.5, 0.0), (1.0, 0.5), (2.0, 0.3), (0.0, 1.0)])
@pytest.mark.parametrize("grouped", [False, True])
def test_rates_over_seeds_and_groups_cover(spread: float, seed_spread: float, grouped: bool) -> None:
    """The 95% interval of a pass rate contains the true rate in at least 90% of simulations.

    In the simulations, the difficulty of the cases varies, or the seeds, or both; cases are independent or grouped.
    """
    rng = np.random.default_rng([int(10 * spread), int(10 * seed_spread), grouped])
    logits = 1 + rng.normal(0, spread, 400_000) + rng.normal(0, seed_spread, 400_000)
    true, held = float((1 / (1 + np.exp(-logits))).mean()), 0
    groups = [str(i // 4) for i in range(40)] if grouped else None
    for _ in range(DRAWS):
        hard = rng.normal(0, spread, 10).repeat(4) if grouped else rng.normal(0, spread, 40)
        share = 1 / (1 + np.exp(-(1 + hard + rng.normal(0, seed_spread, (3, 1)))))
        found = statistics.rate((rng.random((3, 40)) < share).astype(float), groups)
        held += found.low <= true <= found.high
    assert held / DRAWS >= 0.90


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.0), (3, 0.05), (3, 0.1), (5, 0.05)])
def test_continuous_differences_cover(seeds: int, spread: float) -> None:
    """The 95% interval of a difference of mean scores contains the true value in at least 90% of simulations."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        before = rng.beta(2, 3, (1, 60))
        after = before + rng.normal(0.05, 0.1, (seeds, 60)) + rng.normal(0, spread, (seeds, 1))
        found = statistics.bootstrap_difference(before, after, rng, draws=400)
        held += found.low <= 0.05 <= found.high
    assert held / 300 >= 0.9


@given(
    arrays(float, (2, 12), elements=st.sampled_from([0.0, 1.0])),
    arrays(float, (3, 12), elements=st.sampled_from([0.0, 1.0])),
)
def test_intervals_hold_their_estimate(before: Scores, after: Scores) -> None:
    """For any scores, an interval contains its estimate and stays within the possible values."""
    found = statistics.difference(before, after)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.value == pytest.approx(after.mean() - before.mean())
    share = statistics.rate(after)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_no_flips_still_has_a_width() -> None:
    """If none of forty cases changed, the interval of the difference still includes a loss of some points."""
    same = np.array([[1.0] * 36 + [0.0] * 4])
    found = statistics.difference(same, same)
    assert -0.12 < found.low < -0.02
    assert 0.02 < found.high < 0.12


def test_copies_of_a_case_add_nothing() -> None:
    """If every case is copied nine times and the copies form a group, the interval stays about as wide."""
    rng = np.random.default_rng(3)
    before, after = paired(rng, 40, 0.2, 0.1, 0.5)
    once = statistics.difference(before, after)
    copied = statistics.difference(before.repeat(9, 1), after.repeat(9, 1), [str(i // 9) for i in range(360)])
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.05)


def test_a_seed_that_differs_widens() -> None:
    """If seeds differ, the interval is wider; three equal seeds give no narrower interval than one seed."""
    one = np.array([[1.0] * 30 + [0.0] * 10])
    same, apart = one.repeat(3, 0), np.vstack([np.ones(40), one[0], one[0][::-1] * 0])
    assert statistics.rate(same).low == pytest.approx(statistics.rate(one).low)
    assert (
        statistics.rate(apart).high - statistics.rate(apart).low
        > statistics.rate(same).high - statistics.rate(same).low
    )


def seed_spread(scores: Scores) -> float:
    """Return the estimated spread of the pass rate between seeds: 0 if they differ only as much as chance explains."""
    [(variance, freedom)] = statistics.noise_of_difference(np.ones((1, scores.shape[1])), scores).seeds
    assert freedom == len(scores) - 1
    return math.sqrt(variance * len(scores))


def test_seed_noise_is_told_from_case_noise() -> None:
    """The estimated spread of seeds is near 0 if they differ by chance, and near the true spread of 20 points.

    For a single seed there is no estimate.
    """
    rng = np.random.default_rng(9)
    chance = [seed_spread((rng.random((5, 100)) < 0.7).astype(float)) for _ in range(200)]
    real = [
        seed_spread((rng.random((5, 100)) < np.clip(0.5 + rng.normal(0, 0.2, (5, 1)), 0, 1)).astype(float))
        for _ in range(200)
    ]
    assert np.sqrt(np.mean(np.square(chance))) < 0.04
    assert np.sqrt(np.mean(np.square(real))) == pytest.approx(0.2, abs=0.04)
    assert statistics.noise_of_difference(np.ones((1, 10)), np.ones((1, 10))).seeds == ()


# --- tests -------------------------------------------------------------------------------------------------------


def test_sign_flip_keeps_its_false_alarm_rate() -> None:
    """If 20% of 80 cases change by chance, the sign-flip test raises a false alarm in 2 to 5% of simulations."""
    rng = np.random.default_rng(1)
    alarms = sum(statistics.sign_flip(*paired(rng, 80, 0.1, 0.1, 0.6), rng) <= 0.05 for _ in range(DRAWS))
    assert 0.02 <= alarms / DRAWS <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / DRAWS)


def test_sign_flip_finds_a_drop() -> None:
    """The sign-flip test detects a drop of 20 points among 80 cases in at least 80% of simulations."""
    rng = np.random.default_rng(2)
    found = sum(statistics.sign_flip(*paired(rng, 80, 0.25, 0.05, 0.6), rng) <= 0.05 for _ in range(400))
    assert found / 400 >= 0.8


def test_sign_flip_counts_every_pattern() -> None:
    """If few cases differ, the p-value is the exact share of sign patterns whose sum is at most the observed one."""
    before, after = np.array([[1.0, 1, 1, 0, 1, 1]]), np.array([[0.0, 0, 0, 1, 1, 1]])
    changes = [-1, -1, -1, 1]
    sums = [sum(s * abs(c) for s, c in zip(signs, changes, strict=True)) for signs in product((-1, 1), repeat=4)]
    expected = sum(total <= -2 for total in sums) / len(sums)
    assert statistics.sign_flip(before, after, np.random.default_rng(0)) == pytest.approx(expected)


@pytest.mark.parametrize("differing", [4, 9, 13])
def test_sign_flip_equals_scipy(differing: int) -> None:
    """The exact p-value for continuous scores equals that of scipy's permutation test of paired samples."""
    rng = np.random.default_rng(differing)
    before, after = rng.random((1, differing)), rng.random((1, differing))
    expected = permutation_test(
        (after[0], before[0]), lambda a, b: (a - b).mean(), permutation_type="samples", alternative="less"
    ).pvalue
    assert statistics.sign_flip(before, after, rng) == pytest.approx(expected)


def test_bootstrap_agrees_with_scipy() -> None:
    """For one seed and no groups, the bootstrap interval equals scipy's percentile interval up to random noise."""
    rng = np.random.default_rng(8)
    before = rng.beta(2, 3, (1, 80))
    after = np.clip(before + rng.normal(0.05, 0.2, (1, 80)), 0, 1)
    found = statistics.bootstrap_difference(before, after, rng)
    expected = bootstrap(((after - before)[0],), np.mean, method="percentile", rng=rng).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_the_exact_sign_flip_test_counts_every_pattern() -> None:
    """With few differing groups, the exact test has the p-value of all patterns of signs, with seeds and groups."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        before, after = rng.integers(0, 2, (3, 16)).astype(float), rng.integers(0, 2, (3, 16)).astype(float)
        groups = [f"group {n // 2}" for n in range(16)]
        counted = statistics.sign_flip(after, before, rng, groups)
        assert statistics.exact_sign_flip(before, after, groups) == pytest.approx(counted)


def test_the_exact_sign_flip_test_is_exact_with_many_cases() -> None:
    """With 80 cases that all improve, the p-value is 2 to the power of -80; without a change, it is 1."""
    before, after = np.zeros((1, 80)), np.ones((1, 80))
    assert statistics.exact_sign_flip(before, after) == pytest.approx(2.0**-80)
    assert statistics.exact_sign_flip(before, before) == 1.0
    assert statistics.exact_sign_flip(after, before) == 1.0


def test_sign_flip_drawn_agrees_with_counted() -> None:
    """If many cases differ, sign patterns are drawn at random, and the p-value is near that of the binomial test."""
    before = np.array([[1.0] * 14 + [0.0] * 6])
    found = statistics.sign_flip(before, 1 - before, np.random.default_rng(0))
    assert found == pytest.approx(binomtest(6, 20, alternative="less").pvalue, abs=0.01)


def test_identical_scores_never_alarm() -> None:
    """If no score differs, the p-value of the sign-flip test is 1."""
    same = np.ones((2, 10))
    assert statistics.sign_flip(same, same, np.random.default_rng(0)) == 1.0


def closed_bonferroni(values: list[float]) -> list[float]:
    """Return adjusted p-values by closed testing: the largest Bonferroni p-value of all sets that hold a hypothesis.

    Holm's procedure is this one, without looking at every set (Marcus, Peritz and Gabriel, Biometrika 63, 1976).
    """
    every = range(len(values))
    sets = [chosen for size in range(1, len(values) + 1) for chosen in combinations(every, size)]
    whole = [min(1.0, len(chosen) * min(values[i] for i in chosen)) for chosen in sets]
    return [max(p for chosen, p in zip(sets, whole, strict=True) if i in chosen) for i in every]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_the_closed_bonferroni_test(values: list[float]) -> None:
    """Holm's adjusted p-values equal those of the closed test that applies Bonferroni's to every set of hypotheses."""
    assert statistics.holm(values) == pytest.approx(closed_bonferroni(values))


def test_holm_agrees_with_statsmodels() -> None:
    """Five p-values are adjusted as `multipletests` of statsmodels 0.15.0 adjusted them."""
    found = statistics.holm([0.04, 0.011, 0.0125, 0.5, 0.3])
    assert found == pytest.approx([0.12, 0.055, 0.055, 0.6, 0.6])


def test_holm_holds_the_family() -> None:
    """If 12 variants without a true change are tested together, at most 5% of such families have a false alarm."""
    rng = np.random.default_rng(4)
    families = 400
    alarms = 0
    for _ in range(families):
        raw = [statistics.sign_flip(*paired(rng, 80, 0.1, 0.1, 0.6), rng) for _ in range(12)]
        alarms += min(statistics.holm(raw)) <= 0.05
    assert alarms / families <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / families)


# --- power -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cases", [40, 80, 200])
@pytest.mark.parametrize("discordance", [0.05, 0.2])
def test_what_is_called_detectable_is_detected(cases: int, discordance: float) -> None:
    """If the true drop is as large as `detectable` says, the sign-flip test finds it in about 80% of simulations."""
    rng = np.random.default_rng([cases, int(100 * discordance)])
    drop = statistics.detectable(cases, discordance)
    lost, won = drop + discordance / 2, discordance / 2
    found = sum(
        statistics.sign_flip(*paired(rng, cases, lost, won, 0.9 * (1 - lost - won)), rng) <= 0.05 for _ in range(400)
    )
    assert 0.70 <= found / 400 <= 0.92


def test_needed_and_detectable_are_inverse() -> None:
    """`cases_needed` and `detectable` are inverse functions."""
    for drop in (0.05, 0.1, 0.2):
        assert statistics.detectable(statistics.cases_needed(drop, 0.1), 0.1) == pytest.approx(drop, rel=0.02)


def test_sides_of_different_cases_are_refused() -> None:
    """If the two sides have different numbers of cases, or there are no cases, the error says so."""
    with pytest.raises(ValueError, match="same cases"):
        statistics.difference(np.ones((1, 3)), np.ones((1, 4)))
    with pytest.raises(ValueError, match="at least one"):
        statistics.rate(np.ones((1, 0)))


# --- intervals over other trainings ------------------------------------------------------------------------------


def trainings(rng: np.random.Generator, seeds: int, shares: Scores, spread: float) -> Scores:
    """Draw scores of cases with the pass rates `shares`. Each seed shifts the log-odds of all cases at random."""
    odds = np.log(shares / (1 - shares)) + rng.normal(0, spread, size=(seeds, 1))
    return (rng.random((seeds, len(shares))) < 1 / (1 + np.exp(-odds))).astype(float)


def test_retrained_covers_other_trainings() -> None:
    """In at least 93% of simulations, the interval of `retrained` contains the mean pass rate of other seeds."""
    rng = np.random.default_rng(3)
    shares = rng.beta(4, 1, size=30).clip(0.02, 0.98)
    truth = float(np.mean([trainings(rng, 50, shares, 0.5).mean() for _ in range(200)]))
    held = 0
    for _ in range(500):
        found = statistics.retrained(trainings(rng, 5, shares, 0.5))
        held += found.low <= truth <= found.high
    assert held / 500 >= 0.93


def test_retrained_difference_bounds_a_loss() -> None:
    """The 95% upper bound of the loss is at least the true loss of 10 points in at least 93% of simulations.

    If nothing changed, the interval still has a width.
    """
    rng = np.random.default_rng(4)
    before = np.full(30, 0.95)
    held = 0
    for _ in range(500):
        sides = trainings(rng, 5, before, 0.0), trainings(rng, 5, before - 0.1, 0.0)
        held += -statistics.retrained_difference(*sides, level=0.9).low >= 0.1
    assert held / 500 >= 0.93
    alike = statistics.retrained_difference(np.ones((5, 20)), np.ones((5, 20)))
    assert (alike.value, -alike.low) == (0.0, alike.high)
    assert 0.02 < alike.high < 0.04


def test_one_seed_a_side_is_judged_by_its_cases() -> None:
    """If there is a single seed, `retrained` gives Wilson's interval, as if the cases were independent trials."""
    one = np.array([[1.0] * 18 + [0.0] * 2])
    assert statistics.retrained(one).low == pytest.approx(statistics.wilson(0.9, 20, Z95)[0])
