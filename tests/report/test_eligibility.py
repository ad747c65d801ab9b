"""Reasons for a variant's eligibility."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.report.eligibility import eligibility
from tests.support.report_runs import sample_run


def test_eligibility_says_why() -> None:
    """Everyone is told why they may be chosen or not: lost, not shown, or not finished."""
    whole = sample_run()
    told = {v.name: eligibility(whole, v) for v in whole.variants}
    for variant in whole.variants:
        found = told[variant.name]
        assert (found.word == "yes") == (variant.name in whole.choice.eligible)
        assert found.why
    assert "did not finish" in told[whole.variants[-1].name].why


@pytest.mark.parametrize(("upper", "said"), [(10.49, 11), (10.51, 11), (11.0, 11)])
def test_less_than_is_never_said_of_less(upper: float, said: int) -> None:
    """A loss that lies below 10.49 points is not said to be less than 10."""
    whole = sample_run()
    variants = tuple(replace(v, safety=v.safety and replace(v.safety, upper=upper)) for v in whole.variants)
    eligible = [v for v in variants if v.name in whole.choice.eligible and v.safety]
    assert eligible
    assert {eligibility(whole, v).why for v in eligible} == {f"loses less than {said} points"}
