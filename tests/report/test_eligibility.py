"""Tests of how the report says whether a variant is eligible, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.run_results import LossVerdict
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


@pytest.mark.parametrize(("upper", "said"), [(10.42, "10.5"), (10.5, "10.5"), (10.51, "10.6"), (11.0, "11")])
def test_the_bound_of_a_loss_is_rounded_up(upper: float, said: str) -> None:
    """The upper bound of a loss is rounded up: a bound of 10.42 points is reported as less than 10.5 points."""
    whole = sample_run()
    variants = tuple(replace(v, loss=v.loss and replace(v.loss, upper=upper)) for v in whole.variants)
    eligible = [v for v in variants if v.name in whole.choice.eligible and v.loss]
    assert eligible
    assert {eligibility(whole, v).why for v in eligible} == {f"keeps: loses less than {said} points"}


def test_a_loss_that_is_not_shown_is_unclear() -> None:
    """A variant that is neither shown to keep nor to lose is unclear, and the reason says how many cases would tell."""
    whole = sample_run()
    first = whole.variants[0]
    assert first.loss
    unclear = replace(first, loss=replace(first.loss, verdict=LossVerdict.CANNOT_TELL, upper=47.11, needed=60))
    found = eligibility(replace(whole, choice=replace(whole.choice, eligible=())), unclear)
    assert (found.word, found.why) == ("unclear", "cannot tell: may lose 47.2 points; about 60 cases would tell")


def test_a_loss_is_shown_by_its_lower_bound() -> None:
    """A variant that is shown to lose too much is not eligible, and the reason gives the lower bound, rounded down."""
    whole = sample_run()
    first = whole.variants[0]
    assert first.loss
    loses = replace(first, loss=replace(first.loss, verdict=LossVerdict.LOSES, low=45.19))
    assert eligibility(whole, loses).why == "loses more than 45.1 points"


def test_a_gain_is_told_as_a_gain() -> None:
    """If the bound of an eligible variant shows a gain, the reason says so, and not that it loses less than nothing."""
    whole = sample_run()
    first = whole.variants[0]
    assert first.loss
    gains = replace(first, loss=replace(first.loss, verdict=LossVerdict.KEEPS, upper=-4.26))
    found = eligibility(replace(whole, choice=replace(whole.choice, eligible=(first.name,))), gains)
    assert (found.word, found.why) == ("yes", "keeps: gains at least 4.2 points")
