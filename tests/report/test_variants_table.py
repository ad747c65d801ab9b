"""Tests of the report's table of variants."""

from __future__ import annotations

from tests.support.report_runs import run_and_page

TOY = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."


def test_every_variant_is_a_row() -> None:
    """The table has a row for the base model and for every variant; a variant's row gives its status in words."""
    made, page = run_and_page()
    rows = page.id("variants").all("tbody")[0].all("tr")
    assert len(rows) == 1 + len(made.variants)
    for row, variant in zip(rows[1:], made.variants, strict=True):
        assert variant.name in row.text
        assert variant.statuses[0].value in row.text.lower()
