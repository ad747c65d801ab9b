"""Tests of the net loss on simulated variants: a small part of the study `tests/studies/placebos.py`."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.net_loss import chance_shown, least_passes, net_loss
from harness.analysis.statistics import seed_variance as seed_variance_of
from tests.studies.placebos import (
    BETAS,
    MARGINS,
    SIZES,
    Design,
    alternatives,
    bounds,
    counted,
    draw,
    moments,
    predicted_chance,
    seed_variance,
    unlike,
    whole_groups,
)

DRAWS = 2_000
PLACEBO = [(0.0, "weaker")]


@pytest.mark.parametrize("design", [Design((2, 2), 30, 3, 0.5), Design((0.5, 0.5), 30, 1, sizes=SIZES)], ids=str)
def test_bounds_of_many_runs_are_those_of_each_run(design: Design) -> None:
    """The vectorised bounds, and the variance between seeds, equal those that the product computes run by run."""
    drawn = draw(np.random.default_rng(0), design, 50)
    variant = drawn.variant(0.1, "broken")
    of = moments(drawn.base, variant, design.groups)
    low, high = bounds(of, 0.95)
    for n in range(50):
        scores = variant[n].astype(float)
        found = net_loss(drawn.base[n : n + 1].astype(float), scores, design.groups)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((low[n], high[n]), abs=1e-9)
        if design.seeds > 1:
            assert seed_variance_of(scores).value == pytest.approx(float(seed_variance(variant)[n]), abs=1e-12)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("sizes", [(), SIZES])
def test_a_placebo_loses_nothing_on_average_and_is_rarely_said_to_lose(
    beta: tuple[float, float], sizes: tuple[int, ...]
) -> None:
    """A variant as good as the base model loses nothing on average, and its interval contains 0 in 93% of the runs.

    In at most 1.5% of the runs it is said to lose more than the margin. The mean of 2,000 draws is within 1 point of 0;
    the study has more draws and narrower limits.
    """
    (row,) = counted(np.random.default_rng(1), Design(beta, 52, 3, sizes=sizes), DRAWS, PLACEBO)
    assert abs(row["mean_points_of_all_cases"]) <= 1.0
    assert row["covered"] >= 0.93
    assert row["loses_enough_15"] <= 0.015
    assert row["loses_enough_10"] <= 0.015


@pytest.mark.parametrize("kind", ["weaker", "broken"])
@pytest.mark.parametrize("beta", BETAS)
def test_a_variant_beyond_the_margin_is_rarely_eligible(beta: tuple[float, float], kind: str) -> None:
    """A variant that loses as much as the margin allows is shown to keep enough in at most 7.5% of simulated runs.

    If it loses 5 points more, this happens in at most 5%.
    """
    rows = counted(np.random.default_rng(2), Design(beta, 52), DRAWS, [(0.15, kind), (0.20, kind)])
    assert rows[0]["keeps_15"] <= 0.075
    assert rows[1]["keeps_15"] <= 0.05


@pytest.mark.parametrize("sizes", [(3,), (5,), (1, 1, 1, 10)], ids=str)
def test_groups_that_break_as_a_whole_are_not_missed(sizes: tuple[int, ...]) -> None:
    """If whole groups break on a strong base, a variant at the margin is shown to keep enough in at most 7.5% of runs.

    If it loses 5 points more, this happens in at most 5%. The interval contains the loss in 93%.
    """
    rows = whole_groups(np.random.default_rng(6), Design((19, 1), 130, sizes=sizes), DRAWS)
    assert all(row["covered"] >= 0.93 for row in rows)
    assert rows[1]["keeps_15"] <= 0.075
    assert rows[2]["keeps_15"] <= 0.05


def test_a_weaker_assumption_about_groups_would_miss_them() -> None:
    """With a correlation of 0.25 within groups, a variant at the margin would be shown to keep enough in 8% or more."""
    rows = whole_groups(np.random.default_rng(6), Design((19, 1), 130, sizes=(1, 1, 1, 10)), DRAWS)
    assert rows[1]["weak_keeps_15"] >= 0.08


@pytest.mark.parametrize("others", ["alike", "one noisy", "one diverged"])
def test_bad_siblings_hide_no_placebo(others: str) -> None:
    """A placebo is shown to keep enough, and its interval contains 0, just as often if other variants went wrong.

    With the mean variance of all variants, one diverged variant would hide at least a third of the placebos.
    """
    row = unlike(np.random.default_rng(7), Design((8, 2), 130, 3), DRAWS, 0.0, others)
    assert row["own_keeps_15"] >= 0.9
    assert row["own_covered"] >= 0.93
    assert row["own_loses_enough_15"] <= 0.01
    assert (row["mean_keeps_15"] <= 0.67) == (others == "one diverged")


@pytest.mark.parametrize("spread", [0.25, 0.5])
def test_stable_siblings_hide_no_loss(spread: float) -> None:
    """A variant at the margin whose seeds differ is shown to keep enough in at most 7.5% of runs with stable others.

    With the mean variance of all variants, that would happen in up to 15%.
    """
    at = unlike(np.random.default_rng(8), Design((8, 2), 130, 3, spread), DRAWS, 0.15, "stable")
    assert at["own_keeps_15"] <= 0.075
    assert at["own_covered"] >= 0.92
    assert at["mean_keeps_15"] > at["own_keeps_15"] + 0.02


def test_the_rule_of_base_passes_turns_luck_into_loss() -> None:
    """If only the cases that the base model passes count, a variant that is as good as it seems to lose 40 points."""
    design = Design((2.0, 2.0), 52)
    (row,) = counted(np.random.default_rng(3), design, 500, PLACEBO)
    assert 35 <= row["mean_by_old_rule"] <= 45
    beside = alternatives(np.random.default_rng(4), design, 100, *PLACEBO[0])
    assert beside["old_loses_15"] >= 0.95
    assert beside["rule_loses_15"] <= 0.05


@pytest.mark.parametrize("beta", [(2.0, 2.0), (2.8, 1.2), (3.6, 0.4)])
@pytest.mark.parametrize(("seeds", "sizes"), [(1, ()), (3, ()), (3, SIZES)])
def test_the_predicted_chance_to_be_shown_is_the_simulated_one(
    beta: tuple[float, float], seeds: int, sizes: tuple[int, ...]
) -> None:
    """The predicted chance that a placebo is shown to keep enough is at most 6 points above the simulated share.

    Without groups it is also at most 6 points below. Correlations within groups are assumed to be strong, so that the
    prediction for groups is up to 12 points too low.
    """
    design = Design(beta, 130, seeds, sizes=sizes)
    (row,) = counted(np.random.default_rng(5), design, DRAWS, PLACEBO)
    for margin in MARGINS:
        error = predicted_chance(design, margin, 0.0) - row[f"keeps_{100 * margin:.0f}"]
        assert -(0.12 if sizes else 0.06) <= error <= 0.06


def test_a_base_model_that_passes_every_case_is_judged_by_their_number() -> None:
    """If the base model passes all cases, a variant without loss is shown to keep them if there are enough cases."""
    least = least_passes(0.15)
    assert chance_shown(least + 5, 1.0, 0.15) == pytest.approx(1)
    assert chance_shown(least - 5, 1.0, 0.15) == pytest.approx(0)
