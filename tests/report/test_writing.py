"""`harness report` on one run and on two, as a page, a summary and tables; the report in a notebook's cell."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

import harness
from harness.analysis.regression import verdict
from harness.analysis.regression.baseline import baseline_of
from harness.analysis.regression.run_comparison import compare
from harness.cli import main
from harness.core.measurement import Basis
from harness.core.regression import Decision, Policy
from harness.core.results import Choice, Results
from harness.core.scores import Sample
from harness.core.settings import Settings
from harness.report import comparison, markdown, render_comparison, spreadsheets
from harness.report.data_frame import Run
from harness.storage.runs import RunStore
from tests.report.test_page import parse
from tests.support import run_pairs, synthetic_runs
from tests.support.run_pairs import CASES, NAMED, SEEDS
from tests.support.synthetic_runs import HOSTILE, machine, manifest, results

LOST = {"learn 0": SEEDS, "learn 1": SEEDS, "learn 2": SEEDS}
BAD = "=cmd|'/c calc'!A0 | <img src=x onerror=alert(1)> `x` \x1b[31m"


def stored(made: Results, folder: Path) -> Path:
    folder.mkdir(parents=True)
    store = RunStore(folder)
    store.write_manifest(made.run)
    store.write_results(made, (), "")
    return folder


def decided(before: Results, after: Results) -> Decision:
    return verdict.decide(compare(baseline_of(before, "before"), baseline_of(after, "after")), Policy(10))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    stored(run_pairs.results(), Path("first"))
    stored(run_pairs.results(LOST), Path("second"))
    return tmp_path


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- two runs on a page ------------------------------------------------------------------------------------------


def test_two_runs_on_one_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page of two runs says first what became worse, and shows every lost case with both answers."""
    assert main(["report", "first", "second"]) == 0
    said = Path(capsys.readouterr().out.strip())
    assert said == Path("second/against-first.html")
    page = parse(said.read_text(encoding="utf-8"))
    assert "Worse" in page.id("answer").all("h2")[0].text
    assert "30.0 points lost" in page.id("answer").text
    cards = page.all("article", class_="case")
    assert [card.all("h3")[0].text for card in cards] == list(LOST)
    assert all("passes under 5 of 5 seeds, now 0 of 5" in card.text for card in cards)
    assert "are the same on both sides" in page.id("environment").text


def test_what_was_not_the_same_stands_out() -> None:
    """Other versions and another machine stand in a table right after the answer; the same ones are not listed."""
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
    """Another base model is no regression: the page says that nothing can be compared, and what stands in the way."""
    other = run_pairs.results()
    model = replace(other.run.model, name="another", digest="f" * 64)
    page = parse(
        render_comparison(decided(run_pairs.results(), replace(other, run=replace(other.run, model=model))), now="")
    )
    assert "cannot be compared" in page.id("answer").text
    assert "another" in page.id("environment").text


def test_the_worst_variant_comes_first() -> None:
    """Variants stand by how grave their verdict is, whatever the grid's order."""
    found = comparison.comparison_page(decided(run_pairs.results(), run_pairs.results(LOST)), "now")
    order = [comparison.SEVERITY.index(v.verdict) for v in found.variants if v.verdict]
    assert order == sorted(order)
    assert found.verdict.value == "regressed"


def test_hostile_text_in_two_runs() -> None:
    """Hostile answers of two runs show as text on their page, and steer neither Markdown nor a spreadsheet."""

    def with_bad(sample: Sample) -> Sample:
        return replace(sample, answer=replace(sample.answer, text=BAD)) if sample.case in LOST else sample

    after = run_pairs.results(LOST)
    after = replace(after, samples=tuple(map(with_bad, after.samples)))
    found = decided(run_pairs.results(), after)
    page = parse(render_comparison(found, now="now"))
    assert not page.all("img")
    assert "onerror" in page.id("changes").text
    flips = rows(spreadsheets.comparison_tables(found)["flips.csv"])
    assert flips[0]["answer_after"].startswith("'=cmd")
    assert "\x1b" not in spreadsheets.comparison_tables(found)["flips.csv"]


def test_only_what_both_have_is_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A variant that only one run has is named, not refused: a page is no gate."""
    more = run_pairs.results(variant=replace(NAMED, id="v-x", name="another", settings=Settings(5e-3)))
    stored(more, Path("third"))
    assert main(["report", "first", "third"]) == 0
    page = parse(Path("third/against-first.html").read_text(encoding="utf-8"))
    assert "Not in the later run: default" in page.id("answer").text
    assert "Only in the later run: another" in page.id("answer").text


def test_a_run_against_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same run twice is a slip."""
    assert main(["report", "first", "first"]) == 2
    assert "are the same run" in capsys.readouterr().err


# --- summaries and tables ----------------------------------------------------------------------------------------


def test_markdown_of_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary for a pull request is printed: answer, reasons, every variant with its eligibility, the command."""
    made = results(8, 18, hostile=False)
    stored(made, Path("run"))
    assert main(["report", "run", "--format", "md"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("## Best in this demonstration: `")
    assert "> Toy model" in said
    assert all(f"`{variant.name}`" in said for variant in made.variants)
    assert "no: did not finish: diverged" in said
    assert "`harness run suites/workshop`" in said


def test_markdown_of_hostile_names() -> None:
    """Markup in names, prompts and reasons is text in the summary."""
    made = results(8, 18)
    bad = "x](http://evil) <img src=x> | `b` @everyone"
    made = replace(
        made, choice=Choice(None, (bad,)), variants=(replace(made.variants[0], name=bad), *made.variants[1:])
    )
    said = markdown.summary(made)
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", said.replace("\\`", ""))
    assert "evil" in outside
    assert not any(markup in outside.replace("\\]", "") for markup in ("<img", "](", "@everyone"))


def test_tables_of_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables are CSV files with raw values: every variant, every case by variant, every phase with its basis."""
    made = results(8, 18, hostile=False, seeds=(0, 1))
    stored(made, Path("run"))
    assert main(["report", "run", "--format", "csv"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.name for path in paths] == ["variants.csv", "cases.csv", "costs.csv"]
    variants, cases, costs = (rows(path.read_text(encoding="utf-8")) for path in paths)
    assert [row["variant"] for row in variants] == ["base", *(v.name for v in made.variants)]
    first = made.variants[0]
    assert int(variants[1]["generalise_passed"]) == first.rates[made.choice.objective].passed
    assert float(variants[1]["generalise_low"]) <= float(variants[1]["generalise_rate"])
    assert [row["case"] for row in cases] == [c.id for c in made.run.suite.cases if c.split == "main"]
    assert {row["basis"] for row in costs} == {Basis.MEASURED.value}
    assert float(costs[0]["seconds"]) == made.base.costs[0].seconds.value


def test_tables_of_two_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two runs the tables are changes, flips and environment, in a directory that names the earlier one."""
    assert main(["report", "first", "second", "--format", "csv"]) == 0
    assert capsys.readouterr().out.split()[0] == "second/against-first/changes.csv"
    flips = rows(Path("second/against-first/flips.csv").read_text(encoding="utf-8"))
    assert [row["case"] for row in flips] == list(LOST)
    assert main(["report", "first", "second", "--format", "md"]) == 0
    assert "regressed" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    """Text that a spreadsheet would run stands behind an apostrophe; numbers stay numbers."""
    assert str(spreadsheets._safe(text)).startswith("'")
    assert spreadsheets._safe(-1.5) == -1.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "first", "--output", "."], "is a directory"),
        (["report", "first", "--format", "csv", "--output", "first/run.json"], "is a file"),
        (["report", "first", "--output", "first/run.json/page.html"], "cannot write"),
        (["report", "first", "--format", "csv", "--output", "first/run.json/tables"], "cannot write"),
        (["report", "first", "nowhere"], "there is no run in nowhere"),
    ],
)
def test_places_that_are_none(here: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be written or read is answered in words, and ends with 2."""
    assert main(words) == 2
    assert message in capsys.readouterr().err


# --- a notebook --------------------------------------------------------------------------------------------------


def test_display(here: Path) -> None:
    """A run, or its directory, shows its whole report in a notebook's cell, with style and script of its own."""
    made = results(6, 8)
    for shown in (harness.display(Run(made)), harness.display("first")):
        html = shown._repr_html_()
        assert html.startswith("<style>")
        page = parse(html)
        assert not page.all("html")
        assert not page.all("meta")
        assert len(page.all("script")) == 1
        assert page.all("article", class_="case")
        assert len(repr(shown)) < 100
    assert HOSTILE[0] in parse(harness.display(Run(made)).html).text
