"""Tests of how the report shows trials that did not finish."""

from __future__ import annotations

from harness.core.training_outcome import Status
from tests.support.report_runs import run_and_page

TOY = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."


def test_failed_variants_are_drawn_and_listed() -> None:
    """If a variant did not finish, it is still on the trade-off chart, and is listed with its message and log."""
    made, page = run_and_page()
    failed = [v for v in made.variants if v.statuses[0] is not Status.SUCCEEDED]
    assert len(failed) == 3
    for variant in failed:
        assert variant.name in page.id("trade-off").all("svg")[0].text
        assert variant.messages[0] in page.id("failures").text
        assert variant.logs[0] in page.id("failures").text
