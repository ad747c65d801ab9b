"""Tests of the table that compares every two variants."""

from __future__ import annotations

from harness.report import pairwise
from harness.report.pass_rates import scores_by_role
from tests.support.report_runs import sample_run


def test_pairs_are_compared_both_ways() -> None:
    """If variant A is better than B by some points, the table also says that B is worse than A by as many points."""
    whole = sample_run()
    found = pairwise.pairwise(whole, scores_by_role(whole, whole.samples))
    assert found
    size = len(found.names)
    assert found.pairs == size * (size - 1) // 2
    opposite = {"better": "worse", "worse": "better", "unclear": "unclear"}
    for row in range(size):
        assert found.rows[row][row] is None
        for column in range(row):
            one, other = found.rows[row][column], found.rows[column][row]
            assert one
            assert other
            assert int(one.text) == -int(other.text)
            assert other.verdict == opposite[one.verdict]
    unclear = sum(d.verdict == "unclear" for row in found.rows for d in row if d)
    assert unclear == 2 * found.unclear
