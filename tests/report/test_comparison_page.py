"""Tests of the page that compares two runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.core.scores import Sample
from harness.core.settings import Settings
from harness.report import comparison_page, csv_tables, render_comparison
from tests.support import run_pairs, synthetic_runs
from tests.support.made_results import machine
from tests.support.parsed_html import parse
from tests.support.report_runs import LOST, decided, rows, stored
from tests.support.run_pairs import CASES, NAMED, SEEDS
from tests.support.synthetic_runs import manifest

BAD = "=cmd|'/c calc'!A0 | <img src=x onerror=alert(1)> `x` \x1b[31m"


def test_two_runs_on_one_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page that compares two runs says first what became worse, and shows every lost case."""
    assert main(["report", "first", "second"]) == 0
    said = Path(capsys.readouterr().out.strip())
    assert said == Path("second/against-first.html")
    page = parse(said.read_text(encoding="utf-8"))
    assert "Worse" in page.id("answer").all("h2")[0].text
    assert "30.0 points lost" in page.id("answer").text
    cards = page.all("article", class_="case")
    assert [card.all("h3")[0].text for card in cards] == list(LOST)
    assert all("passed with 5 of 5 seeds before, now with 0 of 5" in card.text for card in cards)
    assert "are the same in both runs" in page.id("environment").text


def test_environment_differences_follow_the_answer() -> None:
    """The section after the answer lists only the versions and devices that differ between the two runs."""
    there = replace(machine(), device="Another CPU")
    run = manifest(synthetic_runs.suite(CASES), [NAMED], SEEDS, on=there)
    versions = run.provenance.versions | {"trl": "9.9.9"}
    run = replace(run, provenance=replace(run.provenance, versions=versions))
    page = parse(render_comparison(decided(run_pairs.results(), run_pairs.results(run=run)), now="now"))
    told = {row.all("th")[0].text: row.text for row in page.id("environment").all("tbody")[0].all("tr")}
    assert set(told) == {"trl", "device"}
    assert "1.16.0" in told["trl"]
    assert "9.9.9" in told["trl"]
    sections = [section.attributes["id"] for section in page.all("section")]
    assert sections.index("environment") == 1


def test_runs_that_cannot_be_compared_say_why() -> None:
    """If the base models differ, the page says that the runs cannot be compared, and names both models."""
    other = run_pairs.results()
    model = replace(other.run.model, name="another", digest="f" * 64)
    page = parse(
        render_comparison(decided(run_pairs.results(), replace(other, run=replace(other.run, model=model))), now="")
    )
    assert "cannot be compared" in page.id("answer").text
    assert "another" in page.id("environment").text


def test_the_worst_variant_comes_first() -> None:
    """The page that compares two runs shows the variants with the most severe verdict first."""
    found = comparison_page.comparison_page(decided(run_pairs.results(), run_pairs.results(LOST)), "now")
    order = [comparison_page.SEVERITY.index(v.verdict) for v in found.variants if v.verdict]
    assert order == sorted(order)
    assert found.verdict.value == "regressed"


def test_hostile_text_in_two_runs() -> None:
    """If an answer contains HTML or a spreadsheet formula, the page and the CSV files show it as plain text."""

    def with_bad(sample: Sample) -> Sample:
        return replace(sample, answer=replace(sample.answer, text=BAD)) if sample.case in LOST else sample

    after = run_pairs.results(LOST)
    after = replace(after, samples=tuple(map(with_bad, after.samples)))
    found = decided(run_pairs.results(), after)
    page = parse(render_comparison(found, now="now"))
    assert not page.all("img")
    assert "onerror" in page.id("changes").text
    flips = rows(csv_tables.comparison_tables(found)["flips.csv"])
    assert flips[0]["answer_after"].startswith("'=cmd")
    assert "\x1b" not in csv_tables.comparison_tables(found)["flips.csv"]


def test_variants_of_one_run_only_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If only one of two runs has a variant, the page names the variant and the run."""
    more = run_pairs.results(variant=replace(NAMED, id="v-x", name="another", settings=Settings(5e-3)))
    stored(more, Path("third"))
    assert main(["report", "first", "third"]) == 0
    page = parse(Path("third/against-first.html").read_text(encoding="utf-8"))
    assert "Not in the later run: default" in page.id("answer").text
    assert "Only in the later run: another" in page.id("answer").text
