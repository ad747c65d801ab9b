"""Tests of the report of a run with several quantisations, and so with several base models."""

from __future__ import annotations

import json
from pathlib import Path

from harness.report import json_summary, markdown, render, terminal
from harness.report.case_changes import case_rows
from harness.report.csv_tables import run_tables
from harness.report.data_frame import Run
from harness.report.headline import excerpts
from harness.report.variants_table import columns
from harness.report.variants_table import rows as variant_rows
from tests.support.case_records import records
from tests.support.parsed_html import parse
from tests.support.report_runs import rows
from tests.support.two_bases import FOUR_BIT, PLAIN, two_bases

OTHER = "base quant=nf4"


def test_the_table_of_variants_has_each_base() -> None:
    """The table has a row for each base model, and names the base that each variant is compared with."""
    found = two_bases()
    table = variant_rows(found, {})
    assert [(row.number, row.name, row.base) for row in table] == [
        (0, "base", True), (0, OTHER, True), (1, PLAIN.name, False), (2, FOUR_BIT.name, False),
    ]  # fmt: skip
    place = [column.title for column in columns(found)].index("Base")
    assert [row.cells[place].text for row in table] == ["–", "–", "base", OTHER]
    settings = [column.title for column in columns(found)].index("Quantisation")
    assert [row.cells[settings].text for row in table] == ["none", "nf4", "none", "nf4"]


def test_the_headline_shows_the_base_of_the_best_variant() -> None:
    """The first section compares the best variant with the base in its own quantisation, and names it."""
    answer = parse(render(two_bases(), now="")).id("evidence")
    assert answer.text.count("Base quant=nf4") >= 2
    assert "the base quant=nf4 passes 0 of 40" in answer.text


def test_cases_are_compared_with_their_own_base() -> None:
    """A case that the variant's own base fails is fixed, even if another base passes it; all bases are shown."""
    first = case_rows(two_bases())[0]
    assert first.bases == ("pass", "fail")
    assert [change.kind for change in first.changes] == ["kept", "fixed"]
    head = records(parse(render(two_bases(), now="")))[0].head
    assert (head["bases"], head["changes"]) == (["pass", "fail"], "=+")


def test_prompts_show_the_base_of_the_compared_variant() -> None:
    """Answers are shown beside those of the compared variant's base, and only variants with this base can be chosen."""
    page = parse(render(two_bases(), now=""))
    data = page.id("case-data").attributes
    assert json.loads(data["data-bases"] or "")[int(data["data-base"] or 0)] == "Base quant=nf4"
    assert [each.text for each in page.id("variant").all("option")] == [FOUR_BIT.name]
    shown = excerpts(two_bases(), FOUR_BIT.name)
    assert shown
    assert not shown[0].base_passed
    assert shown[0].tuned_passed


def test_texts_compare_with_the_base_of_the_best_variant() -> None:
    """The terminal, the Markdown summary and the JSON summary compare the best variant with its own base."""
    found = two_bases()
    assert OTHER in terminal.summary(found, "report.html")
    assert "| Role | Confirmed base quant=nf4 | Confirmed tuned | Base quant=nf4 | Tuned |" in markdown.summary(found)
    told = json_summary.overview(found, Path("run"))
    assert told["base"]["retain"] == {"passed": 20, "total": 40}


def test_tables_and_frame_have_each_base() -> None:
    """The CSV tables and the data frame contain the answers of every base model."""
    found = two_bases()
    tables = run_tables(found)
    assert [row["variant"] for row in rows(tables["variants.csv"])] == ["base", OTHER, PLAIN.name, FOUR_BIT.name]
    assert rows(tables["cases.csv"])[0] | {"base": "pass", OTHER: "fail"} == rows(tables["cases.csv"])[0]
    frame = Run(found).frame()
    assert set(frame.variant) == {"base", OTHER, PLAIN.name, FOUR_BIT.name}
