"""Tests of the confidence intervals of pass rates."""

from __future__ import annotations

from harness.report.pass_rates import scores_by_role
from tests.support.report_runs import sample_run


def test_intervals_contain_the_rate() -> None:
    """Every interval contains its pass rate, and is wider than 5 points."""
    whole = sample_run()
    for (name, role), own in scores_by_role(whole, whole.samples).items():
        if not own.cases:
            continue
        outcome = next(o for o in (whole.base, *whole.variants) if o.name == name)
        span, rate = own.span, outcome.rates[role].value
        assert span
        assert rate is not None
        assert span.low - 1e-9 <= rate <= span.high + 1e-9
        assert span.high - span.low > 0.05
