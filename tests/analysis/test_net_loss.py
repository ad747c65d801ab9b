"""Tests of the net loss: values computed by hand, properties of the bounds, and numbers of cases."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from harness.analysis.net_loss import (
    LEAST_DESIGN_EFFECT,
    cases_needed,
    cases_to_show,
    chance_noticed,
    chance_shown,
    design_effect,
    least_passes,
    mean_group,
    net_loss,
)
from harness.analysis.statistics import ONE_SEED, Scores, SeedVariance, seed_variance

MARGINS = st.sampled_from([0.05, 0.1, 0.15, 0.3])


def row(*counts: tuple[int, int]) -> Scores:
    """Return one row of scores: for each pair, a number of cases and whether they pass."""
    return np.array([[float(passes) for number, passes in counts for _ in range(number)]])


def answers(both: int, broken: int, fixed: int, neither: int) -> tuple[Scores, Scores]:
    """Return the scores of a base model and of a variant, with these numbers of cases of each kind."""
    base = row((both, 1), (broken, 1), (fixed, 0), (neither, 0))
    return base, row((both, 1), (broken, 0), (fixed, 1), (neither, 0))


@st.composite
def tables(draw: st.DrawFn) -> tuple[Scores, Scores, list[str]]:
    """Draw the scores of a base model that passes a case, those of a variant, and groups."""
    cases, seeds = draw(st.integers(4, 30)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    base = (rng.random((1, cases)) < draw(st.floats(0.2, 1))).astype(float)
    base[0, 0] = 1.0
    variant = (rng.random((seeds, cases)) < draw(st.floats(0, 1))).astype(float)
    return base, variant, [f"g{n}" for n in rng.integers(0, max(2, cases // 2), cases)]


def test_broken_and_fixed_cases_cancel_out() -> None:
    """A variant that breaks 3 of 20 base passes and fixes 1 of 10 other cases has lost 2 of 20, or 10%."""
    found = net_loss(*answers(17, 3, 1, 9))
    assert found is not None
    assert found.value == pytest.approx(0.1)


def test_a_gain_beyond_what_is_possible_is_unlimited() -> None:
    """If the base passes so few cases that a bound exceeds the gain of passing all of them, nothing limits the gain."""
    few, many = net_loss(*answers(4, 1, 40, 55)), net_loss(*answers(40, 10, 20, 30))
    assert few is not None
    assert many is not None
    assert few.low == -math.inf
    assert few.high < 0
    assert -1 < many.low < many.value < many.high < 1


def test_a_net_gain_is_a_negative_loss() -> None:
    """A variant that fixes more cases than it breaks has a negative net loss."""
    found = net_loss(*answers(9, 1, 6, 4))
    assert found is not None
    assert found.value == pytest.approx(-0.5)


def test_the_bounds_by_hand() -> None:
    """Without groups and between seeds, the bounds are the roots of Fieller's quadratic, or of the floor's.

    Of 40 cases, 30 pass under both models, 4 were broken, 2 fixed.
    """
    base, variant = answers(30, 4, 2, 4)
    x, y = base[0], variant[0]
    n, square = 40, float(t.ppf(0.95, 39)) ** 2
    a, c, d = (np.cov(np.array([x, y]), ddof=1) / n).flat[[0, 1, 3]]
    quadratic = [x.mean() ** 2 - square * a, -2 * (x.mean() * y.mean() - square * c), y.mean() ** 2 - square * d]
    fieller = 1 - np.sort(np.roots(quadratic))[::-1]
    width = square * 1.2 / x.sum()
    ratio = y.mean() / x.mean()
    lost = 1 - np.sort(np.roots([1 + width, -(2 * ratio + width), ratio**2]))[0]
    found = net_loss(base, variant)
    assert found is not None
    assert found.high == pytest.approx(max(fieller[1], lost))
    assert found.low <= fieller[0] + 1e-12


def test_nothing_is_known_of_a_base_without_passes() -> None:
    """If the base model passes no case, there is no net loss."""
    assert net_loss(np.zeros((1, 9)), np.ones((3, 9))) is None


def test_one_cluster_bounds_nothing() -> None:
    """If all cases belong to one group, a loss of everything is not ruled out."""
    found = net_loss(np.ones((1, 9)), np.ones((1, 9)), ["g"] * 9)
    assert found is not None
    assert (found.low, found.high) == (-math.inf, 1)


@settings(deadline=None)
@given(tables())
def test_the_bounds_contain_the_value(found: tuple[Scores, Scores, list[str]]) -> None:
    """The value lies between the bounds, and no loss is above everything that the base model passes."""
    loss = net_loss(*found)
    assert loss is not None
    assert loss.low - 1e-9 <= loss.value <= loss.high + 1e-9
    assert loss.high <= 1 + 1e-9


@settings(deadline=None)
@given(tables())
def test_the_order_of_cases_and_seeds_is_irrelevant(found: tuple[Scores, Scores, list[str]]) -> None:
    """If cases or seeds are given in another order, the net loss and its bounds stay the same."""
    base, variant, groups = found
    one = net_loss(base, variant, groups)
    other = net_loss(base[:, ::-1], variant[::-1, ::-1], groups[::-1])
    assert one is not None
    assert other is not None
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


@settings(deadline=None)
@given(tables(), st.floats(0.6, 0.99))
def test_more_confidence_means_wider_bounds(found: tuple[Scores, Scores, list[str]], level: float) -> None:
    """At a higher level, the bounds are at least as far apart."""
    narrow, wide = net_loss(*found, level=level), net_loss(*found, level=0.995)
    assert narrow is not None
    assert wide is not None
    assert wide.low <= narrow.low + 1e-9
    assert narrow.high <= wide.high + 1e-9


def test_groups_widen_the_bounds() -> None:
    """If cases that break together belong to one group, the bounds are wider than without groups."""
    base, variant = answers(36, 4, 0, 0)
    alone, grouped = net_loss(base, variant), net_loss(base, variant, [f"g{n // 4}" for n in range(40)])
    assert alone is not None
    assert grouped is not None
    assert grouped.high > alone.high


@pytest.mark.parametrize(("margin", "exact"), [(0.15, 19), (0.1, 29)])
def test_least_passes_are_about_the_exact_binomial(margin: float, exact: int) -> None:
    """Without groups, at least as many base passes are needed as for an exact binomial bound without any loss."""
    assert (1 - margin) ** exact < 0.05 <= (1 - margin) ** (exact - 1)
    assert exact <= least_passes(margin) <= exact + 1


def test_groups_need_more_passes() -> None:
    """For cases in groups of four, more base passes are needed than for cases without groups."""
    groups = [f"g{n // 4}" for n in range(40)]
    assert mean_group(groups, 40) == 4
    assert design_effect(np.ones((1, 40)), groups) == 4
    assert least_passes(0.15, 4) == 62


def test_groups_count_by_their_passed_cases() -> None:
    """The design effect is the mean number of base passes in the group of a passed case, but at least 1.2."""
    base = np.array([[1.0, 1.0, 1.0, 0.0, 1.0, 0.0]])
    groups = ["a", "a", "a", "a", "b", "b"]
    assert design_effect(base, groups) == (9 + 1) / 4
    assert design_effect(base) == design_effect(np.zeros((1, 6)), groups) == LEAST_DESIGN_EFFECT


@pytest.mark.parametrize("margin", [0.1, 0.15, 0.3])
def test_fewer_than_the_least_passes_show_nothing(margin: float) -> None:
    """If the base model passes fewer cases than the least number, not even a variant without any change keeps them."""
    few = least_passes(margin) - 1
    loss = net_loss(np.ones((1, few)), np.ones((3, few)))
    assert loss is not None
    assert loss.high >= margin
    many = net_loss(np.ones((1, few + 3)), np.ones((3, few + 3)))
    assert many is not None
    assert many.high < margin


def test_seed_variance_by_hand() -> None:
    """The variance between seeds is that of their means, less the part that single answers explain."""
    scores = np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    # Means 3/4 and 1/4: variance 1/8, of the mean of two 1/16. Interaction: 4 residuals of 1/4 squared, 3 degrees.
    explained = 8 * 0.25**2 / 3 / 8
    assert seed_variance(scores) == SeedVariance(pytest.approx(1 / 16 - explained), 1)
    assert seed_variance(scores[:1]) == ONE_SEED


def test_differing_seeds_widen_the_bounds() -> None:
    """If the same failures fall on one seed, the bounds are wider than if every seed has its share of them."""
    base, even, odd = np.ones((1, 99)), np.ones((3, 99)), np.ones((3, 99))
    even[0, :4] = even[1, 4:8] = even[2, 8:12] = 0
    odd[0, :12] = 0
    calm, shaky = net_loss(base, even), net_loss(base, odd)
    assert calm is not None
    assert shaky is not None
    assert calm.value == shaky.value
    assert shaky.low < calm.low < calm.high < shaky.high


@settings(deadline=None)
@given(tables(), MARGINS)
def test_the_cases_needed_suffice(found: tuple[Scores, Scores, list[str]], margin: float) -> None:
    """If a number of cases is needed, the loss is below the margin, and the number is at least one."""
    base, variant, groups = found
    needed = cases_needed(base, variant, margin, groups)
    loss = net_loss(base, variant, groups)
    assert loss is not None
    if needed is None:
        return
    assert loss.value < margin
    assert needed >= 1


def test_copies_of_the_cases_show_what_was_promised() -> None:
    """If the cases are copied until there are as many as needed, the loss is shown to be below the margin."""
    base, variant = answers(28, 2, 1, 9)
    needed = cases_needed(base, variant, 0.15)
    assert needed is not None
    times = math.ceil(needed / 40)
    shown, not_yet = (
        net_loss(np.tile(base, number), np.tile(variant, number)) for number in (times + 1, max(1, times // 2))
    )
    assert shown is not None
    assert not_yet is not None
    assert shown.high < 0.15 <= not_yet.high


def test_no_number_of_cases_shows_what_is_not_so() -> None:
    """If the net loss reaches the margin, no number of cases is suggested."""
    assert cases_needed(*answers(15, 5, 0, 0), 0.15) is None
    assert cases_needed(np.zeros((1, 9)), np.ones((1, 9)), 0.15) is None


def test_the_chance_rises_with_cases_and_falls_with_the_loss() -> None:
    """More cases raise the probability of showing a small loss; a larger true loss lowers it."""
    by_cases = [chance_shown(n, 0.7, 0.15) for n in (20, 50, 100, 200, 400)]
    by_loss = [chance_shown(200, 0.7, 0.15, loss=loss) for loss in (0.0, 0.05, 0.1, 0.15, 0.2)]
    assert by_cases == sorted(by_cases)
    assert by_loss == sorted(by_loss, reverse=True)
    assert by_loss[3] < 0.07
    assert chance_shown(0, 0.7, 0.15) == chance_shown(100, 0.0, 0.15) == 0


@pytest.mark.parametrize("base", [0.5, 0.7, 0.95])
def test_the_cases_to_show_are_the_smallest_number(base: float) -> None:
    """The number of cases is the smallest one whose probability reaches the power."""
    needed = cases_to_show(base, 0.15)
    assert needed is not None
    assert chance_shown(needed, base, 0.15) >= 0.8 > chance_shown(needed - 1, base, 0.15)


def test_a_base_that_passes_nearly_nothing_needs_too_many_cases() -> None:
    """If no reasonable number of cases would show it, none is suggested."""
    assert cases_to_show(0.001, 0.01) is None


def test_a_harmless_variant_is_shown_about_as_often_as_promised() -> None:
    """In simulations, a variant without loss is shown to keep what the base can do about as often as promised."""
    rng, cases, draws, shown = np.random.default_rng(5), 160, 300, 0
    for _ in range(draws):
        chance = rng.beta(0.7 * 4, 0.3 * 4, cases)
        base, variant = (rng.random((number, cases)) < chance for number in (1, 3))
        loss = net_loss(base.astype(float), variant.astype(float))
        shown += loss is not None and loss.high < 0.15
    assert shown / draws == pytest.approx(chance_shown(cases, 0.7, 0.15), abs=0.1)


def test_a_loss_is_noticed_about_as_often_as_promised() -> None:
    """In simulations, the interval of a variant that loses a tenth is above 0 about as often as promised."""
    rng, cases, draws, noticed = np.random.default_rng(6), 160, 300, 0
    for _ in range(draws):
        chance = rng.beta(0.7 * 4, 0.3 * 4, cases)
        base, variant = rng.random((1, cases)) < chance, rng.random((3, cases)) < 0.9 * chance
        loss = net_loss(base.astype(float), variant.astype(float), level=0.975)
        noticed += loss is not None and loss.low > 0
    assert noticed / draws == pytest.approx(chance_noticed(cases, 0.7, 0.1), abs=0.1)


def test_no_loss_is_rarely_noticed() -> None:
    """A variant that loses nothing is said to lose in at most 2.5% of runs; larger losses are noticed more often."""
    by_loss = [chance_noticed(160, 0.7, loss) for loss in (0.0, 0.05, 0.1, 0.2)]
    assert by_loss[0] <= 0.025
    assert by_loss == sorted(by_loss)
    assert chance_noticed(0, 0.7, 0.1) == 0


def test_two_sided_bounds_are_those_of_half_the_rest() -> None:
    """A bound at the level 0.975 is the end of a two-sided 95% interval: a z of 1.96 for many cases."""
    base, variant = np.ones((1, 4000)), np.ones((1, 4000))
    variant[0, :400] = 0
    found = net_loss(base, variant, level=0.975)
    assert found is not None
    z = NormalDist().inv_cdf(0.975)
    assert found.high - 0.1 == pytest.approx(z * math.sqrt(1.2 * 0.1 * 0.9 / 4000), rel=0.05)
