"""Tests of the net loss on simulated variants: a small part of the study `tests/studies/placebos.py`."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.net_loss import chance_shown, least_passes, net_loss
from harness.analysis.statistics import seed_variance as seed_variance_of
from tests.studies.placebos import (
    BETAS,
    MARGINS,
    Design,
    alternatives,
    bounds,
    counted,
    draw,
    moments,
    predicted_chance,
    seed_variance,
)

DRAWS = 2_000
PLACEBO = [(0.0, "weaker")]


@pytest.mark.parametrize("design", [Design((2, 2), 30, 3, 0.5), Design((0.5, 0.5), 30, 1, grouped=True)], ids=str)
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
@pytest.mark.parametrize("grouped", [False, True])
def test_a_placebo_loses_nothing_on_average_and_is_rarely_said_to_lose(
    beta: tuple[float, float], grouped: bool
) -> None:
    """A variant as good as the base model loses nothing on average, and its interval contains 0 in 93% of the runs.

    In at most 1.5% of the runs it is said to lose more than the margin. The mean of 2,000 draws is within 1 point of 0;
    the study has more draws and narrower limits.
    """
    (row,) = counted(np.random.default_rng(1), Design(beta, 52, 3, grouped=grouped), DRAWS, PLACEBO)
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


def test_the_rule_of_base_passes_turns_luck_into_loss() -> None:
    """If only the cases that the base model passes count, a variant that is as good as it seems to lose 40 points."""
    design = Design((2.0, 2.0), 52)
    (row,) = counted(np.random.default_rng(3), design, 500, PLACEBO)
    assert 35 <= row["mean_by_old_rule"] <= 45
    beside = alternatives(np.random.default_rng(4), design, 100, *PLACEBO[0])
    assert beside["old_loses_15"] >= 0.95
    assert beside["rule_loses_15"] <= 0.05


@pytest.mark.parametrize("beta", [(2.0, 2.0), (2.8, 1.2), (3.6, 0.4)])
@pytest.mark.parametrize(("seeds", "grouped"), [(1, False), (3, False), (3, True)])
def test_the_predicted_chance_to_be_shown_is_the_simulated_one(
    beta: tuple[float, float], seeds: int, grouped: bool
) -> None:
    """The predicted chance that a placebo is shown to keep enough is at most 6 points above the simulated share.

    Without groups it is also at most 6 points below. Correlations within groups are assumed to be strong, so that the
    prediction for groups is up to 12 points too low.
    """
    design = Design(beta, 130, seeds, grouped=grouped)
    (row,) = counted(np.random.default_rng(5), design, DRAWS, PLACEBO)
    for margin in MARGINS:
        error = predicted_chance(design, margin, 0.0) - row[f"keeps_{100 * margin:.0f}"]
        assert -(0.12 if grouped else 0.06) <= error <= 0.06


def test_a_base_model_that_passes_every_case_is_judged_by_their_number() -> None:
    """If the base model passes all cases, a variant without loss is shown to keep them if there are enough cases."""
    least = least_passes(0.15)
    assert chance_shown(least + 5, 1.0, 0.15) == pytest.approx(1)
    assert chance_shown(least - 5, 1.0, 0.15) == pytest.approx(0)
