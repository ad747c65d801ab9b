"""Tests of figures as text: points of a pass rate, and how bounds are rounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.quantities import interval, lower_bound, points, upper_bound


@pytest.mark.parametrize(
    ("value", "text"), [(38.42, "38.4"), (5.0, "5"), (-0.01, "0"), (0.04, "0"), (-3.26, "-3.3"), (10.0, "10")]
)
def test_points_are_rounded_to_the_nearest(value: float, text: str) -> None:
    """An estimate is rounded to the nearest tenth of a point, without a decimal of 0 and without -0."""
    assert points(value) == text


@pytest.mark.parametrize(
    ("value", "below", "above"),
    [(38.42, "38.4", "38.5"), (-3.21, "-3.3", "-3.2"), (5.0, "5", "5"), (10.000000001, "10", "10")],
)
def test_bounds_are_rounded_away_from_the_estimate(value: float, below: str, above: str) -> None:
    """A lower bound is rounded down and an upper bound up, except for errors of floating point."""
    assert (lower_bound(value), upper_bound(value)) == (below, above)


@given(st.floats(-1000, 1000))
def test_a_rounded_bound_claims_no_more(value: float) -> None:
    """A rounded bound is never stricter than the exact one, beyond errors of floating point."""
    assert float(lower_bound(value)) - 1e-6 <= value <= float(upper_bound(value)) + 1e-6


def test_intervals_are_rounded_outwards() -> None:
    """Both ends of an interval are rounded outwards, and a missing end is written as unlimited."""
    assert interval(-3.21, 17.11) == "-3.3 to 17.2"
    assert interval(None, 17.11) == "unlimited to 17.2"
