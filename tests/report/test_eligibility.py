"""Tests of how the report says whether a variant is eligible, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.report.eligibility import eligibility
from tests.support.report_runs import sample_run


def test_eligibility_says_why() -> None:
    """Every variant has a reason why it is eligible, or not, or why that is unclear."""
    whole = sample_run()
    told = {v.name: eligibility(whole, v) for v in whole.variants}
    for variant in whole.variants:
        found = told[variant.name]
        assert (found.word == "yes") == (variant.name in whole.choice.eligible)
        assert found.why
    assert "did not finish" in told[whole.variants[-1].name].why


@pytest.mark.parametrize(("upper", "said"), [(10.49, 11), (10.51, 11), (11.0, 11)])
def test_the_bound_of_a_loss_is_rounded_up(upper: float, said: int) -> None:
    """The upper bound of a loss is rounded up: a bound of 10.49 points is reported as less than 11 points."""
    whole = sample_run()
    variants = tuple(replace(v, safety=v.safety and replace(v.safety, upper=upper)) for v in whole.variants)
    eligible = [v for v in variants if v.name in whole.choice.eligible and v.safety]
    assert eligible
    assert {eligibility(whole, v).why for v in eligible} == {f"loses less than {said} points"}
