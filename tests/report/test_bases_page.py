"""Tests of the page of several runs on different base models, and of the handout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.core.run_results import Confirmation, Finding, Results
from harness.core.suite import Role
from harness.report import render, render_bases, render_handout
from harness.report.bases_page import bases_page
from harness.report.report_files import Format, of_several
from tests.support.parsed_html import parse
from tests.support.report_runs import sample_run, stored


def named(results: Results, name: str) -> Results:
    return replace(results, run=replace(results.run, model=replace(results.run.model, name=name, digest=name)))


def runs() -> list[tuple[Path, Results]]:
    return [(Path("runs/one"), named(sample_run("cuda"), "one")), (Path("runs/two"), named(sample_run("cuda"), "two"))]


def test_each_base_has_its_settings_and_figures() -> None:
    """The table has for each base the figures that the first screen of its own report has, and links from the chart."""
    page = parse(render_bases(runs(), now="now"))
    for _, results in runs():
        own = parse(render(results, now="now"))
        for tile in own.all("div", class_="tile"):
            assert tile.all("b")[0].text in page.id("bases-section").text
    assert page.id("bases").all("svg")
    assert len(page.id("bases-section").all("tbody")[0].all("tr")) == len(runs())


def test_a_role_that_alone_loses_too_much_is_named_beside_the_verdict() -> None:
    """Beside `confirmed`, the row has the words about one role alone that the run's own page and handout have."""
    (root, one), (other, two) = runs()
    assert one.confirmed
    assert one.confirmed.loss
    apart = {role: replace(one.confirmed.loss, points=lost) for role, lost in ((Role.RETAIN, 5.0), (Role.AVOID, 55.0))}
    choice = replace(one.choice, confirmation=Confirmation(Finding.CONFIRMED, ("Why.",)))
    one = replace(one, choice=choice, confirmed=replace(one.confirmed, losses=apart))
    page = parse(render_bases([(root, one), (other, two)], now="now"))
    [words] = [each.text for each in page.id("variant-1").all("small", class_="alone")]
    assert "held-out avoid cases alone, it loses 55 points" in words
    assert words in parse(render(one, now="now")).id("answer").text
    assert words in parse(render_handout(one, now="now")).id("answer").text
    refuted = replace(one, choice=replace(choice, confirmation=Confirmation(Finding.REFUTED, ("Why.",))))
    assert not parse(render_bases([(root, refuted), (other, two)], now="now")).id("variant-1").all(class_="alone")


def test_equal_bases_cannot_be_told_apart() -> None:
    """If two bases pass equally many cases, the page says that they cannot be told apart."""
    found = bases_page(runs(), "now")
    verdicts = {row.title for row in found.rows}
    if verdicts == {"confirmed"}:
        assert "cannot be told apart" in " ".join(found.reasons)
    else:
        assert found.answer == "No base can be recommended: on none of them was a variant confirmed."


def test_the_recommended_base_is_marked_with_its_reason() -> None:
    """The row and the mark of the recommended base say so, and the first reason says what it passes."""
    (root, one), (other, two) = runs()
    choice = replace(one.choice, confirmation=Confirmation(Finding.CONFIRMED, ("Why.",)))
    refuted = replace(two.choice, confirmation=Confirmation(Finding.REFUTED, ("Why.",)))
    for place, found in enumerate([[choice, refuted], [refuted, choice], [choice, choice]]):
        first, second = (replace(each, choice=own) for each, own in zip((one, two), found, strict=True))
        made = bases_page([(root, first), (other, second)], "now")
        page = parse(render_bases([(root, first), (other, second)], now="now"))
        best, rest = ("two", "one") if place == 1 else ("one", "two")
        assert [row.name for row in made.rows if row.recommended] == [best]
        [tag] = page.id("bases-section").all("span", class_="tag")
        assert (tag.text, best in page.all("tr", class_="best")[0].text) == ("recommended", True)
        results = {row.all("td")[1].text: row.all("td")[-1].text for row in page.id("chart").all("tbody")[0].all("tr")}
        assert results == {best: "recommended", rest: "confirmed" if place == 2 else "not confirmed"}
        among = "most of the 2 bases" if place == 2 else "the only base"
        assert among in made.reasons[0]
        assert "of the held-out generalise cases pass" in made.reasons[0]


def test_the_command_of_a_run_has_no_output_directory() -> None:
    """The command that made a run is shown without `--output` and its directory."""
    (root, one), (other, two) = runs()
    for given in ("harness run s --output '/data/my runs' --seed 1", "harness run s --output=/data/x --seed 1"):
        asked = replace(one.run, provenance=replace(one.run.provenance, command=given))
        made = bases_page([(root, replace(one, run=asked)), (other, two)], "now")
        assert made.runs[0] == ("runs/one", "harness run s --seed 1")


def test_joined_kinds_are_explained() -> None:
    """If the name of a kind stands for several, the caption of the kinds explains it, as the run's own page does."""
    (root, one), (other, two) = runs()
    cases = [replace(c, id=f"read-{n}x-{c.id}" if c.role is Role.RETAIN else c.id, group="") for n, c in
             enumerate(one.run.suite.cases)]  # fmt: skip
    names = {old.id: new.id for old, new in zip(one.run.suite.cases, cases, strict=True)}
    suite = replace(one.run.suite, cases=tuple(cases))
    one, two = (
        replace(
            each,
            run=replace(each.run, suite=suite),
            samples=tuple(replace(s, case=names[s.case]) for s in each.samples),
            confirmed_samples=tuple(replace(s, case=names[s.case]) for s in each.confirmed_samples),
        )
        for each in (one, two)
    )
    assert bases_page([(root, one), (other, two)], "now").joined == "read-…"
    assert "“read-…” stands for all kinds whose names begin so." in render_bases([(root, one), (other, two)], now="now")


def test_a_toy_is_not_recommended_beside_a_real_model() -> None:
    """If one of the bases is the toy model, another one is recommended, or none."""
    toy = replace(sample_run(), run=sample_run().run)
    found = bases_page([*runs(), (Path("runs/toy"), toy)], "now")
    assert not found.answer.startswith(toy.run.model.name)
    assert any("toy model" in reason for reason in found.reasons)


def test_other_cases_are_refused() -> None:
    """Runs that ask different cases are refused, with the name of a case."""
    (root, one), (other, two) = runs()
    fewer = replace(two, run=replace(two.run, suite=replace(two.run.suite, cases=two.run.suite.cases[1:])))
    with pytest.raises(UsageError, match="ask different cases"):
        bases_page([(root, one), (other, fewer)], "now")


def test_two_runs_on_one_base_are_compared(tmp_path: Path) -> None:
    """`harness report RUN RUN` compares two runs on one base model, and shows which base for two base models."""
    folders = [stored(results, tmp_path / root.name) for root, results in runs()]
    again = stored(runs()[0][1], tmp_path / "again")
    assert of_several(folders, Format.HTML, None).endswith("bases-one.html")
    assert of_several([folders[0], again], Format.HTML, None).endswith("against-one.html")
    with pytest.raises(UsageError, match="named twice"):
        of_several([folders[0], folders[0]], Format.HTML, None)


def test_the_handout_has_the_pick_and_its_limits() -> None:
    """The handout names the choice with its settings, shows at most three prompts, and says what does not follow."""
    whole = sample_run("cuda")
    page = parse(render_handout(whole, now="now"))
    assert whole.choice.variant
    assert whole.choice.variant in page.id("answer").text
    assert len(page.id("examples").all("tbody")[0].all("tr")) <= 3
    assert whole.run.model.name in page.id("limits").text
    assert not page.all("select")


def test_verdicts_are_explained() -> None:
    """The page of several bases explains its verdicts and words, and names no settings if none were chosen."""
    (root, one), (other, two) = runs()
    none = replace(two, choice=replace(two.choice, variant=None), confirmed=None, confirmed_samples=())
    page = parse(render_bases([(root, one), (other, none)], now="now"))
    words = {each.text for each in page.all("span", class_="finding")}
    assert "nothing chosen" in words
    explained = {each.text for each in page.all("dl", class_="verdicts")[0].all("dt")}
    assert words <= explained
    assert "retain" in explained - words
    assert "none chosen" in page.id("variant-2").text
