"""Tests of a run's report as an HTML page that is parsed into elements."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import harness
from harness.analysis.constant_cases import constant_cases
from harness.core.outside_text import visible
from harness.core.run_results import Choice
from harness.core.suite import (
    Message,  # fmt: skip
)
from harness.core.training_outcome import (
    Status,  # fmt: skip
)
from harness.report import render
from harness.report.data_frame import Run
from tests.support.case_records import records
from tests.support.parsed_html import parse
from tests.support.report_runs import run_and_page
from tests.support.synthetic_runs import HOSTILE, results

TOY = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."


def test_policy_allows_only_this_script() -> None:
    """The page's content security policy allows no script but the page's own, by its hash."""
    _, page = run_and_page()
    [script] = page.all("script")
    [policy] = [m.attributes["content"] for m in page.all("meta") if "http-equiv" in m.attributes]
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_nothing_is_fetched() -> None:
    """The page loads no other file, and every link leads to a place on the page."""
    _, page = run_and_page()
    for element in page.all():
        assert not {"src", "srcset", "data", "action", "xlink:href"} & set(element.attributes), element.tag
        assert (element.attributes.get("href") or "#").startswith("#")
        assert not [name for name in element.attributes if name.startswith("on")]
        assert element.tag not in {"link", "iframe", "object", "embed", "base", "img"}
    assert "@import" not in page.all("style")[0].text
    assert "http" not in page.all("style")[0].text


def test_links_lead_somewhere() -> None:
    """Every link on the page has a target, and no id occurs twice."""
    _, page = run_and_page()
    ids = [e.attributes["id"] for e in page.all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    cases = {f"case={record.head['anchor']}" for record in records(page)}
    assert {(e.attributes["href"] or "")[1:] for e in page.all("a")} <= {*ids, *cases}


def test_no_control_characters() -> None:
    """The page contains no control characters, text-direction marks or lone surrogates."""
    made, _ = run_and_page()
    html = render(made, now="now")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)
    assert html.encode()


def test_hostile_names() -> None:
    """If variant names, case ids, messages, versions or the command contain markup, the page shows it as text."""
    bad = "</svg></script><img src=x onerror=alert(1)>\u202e\x00"
    made, _ = run_and_page()
    first = made.variants[0]
    run = replace(made.run, provenance=replace(made.run.provenance, command=bad, versions={bad: bad}))
    case = replace(made.run.suite.cases[0], id=bad, group=bad, description=bad, messages=(Message(bad, bad),) * 2)
    run = replace(run, suite=replace(run.suite, cases=(case, *run.suite.cases[1:]), description=bad))
    variants = (replace(first, name=bad, messages=(bad, bad)), *made.variants[1:])
    page = parse(render(replace(made, run=run, variants=variants, choice=Choice(bad, (bad,)), leaks={}), now=bad))
    assert not page.all("img")
    assert len(page.all("script")) == 1
    assert visible(bad) in page.id("answer").text
    assert visible(bad) in page.id("provenance").text
    assert "onerror" in page.id("trade-off").text


def test_charts_are_accessible() -> None:
    """Every chart has a title, a description and its numbers as a table."""
    _, page = run_and_page()
    assert len(page.all("figure")) == 5
    for figure in page.all("figure"):
        links = figure.all("svg")[0].all("a")
        assert figure.all("svg")[0].attributes["role"] == ("group" if links else "img")
        assert figure.all("title")[0].text
        assert figure.all("desc")[0].text
        assert figure.all("table")[0].all("td")


def test_tables_and_inputs_are_labelled() -> None:
    """Every table has a caption, every header cell a scope and every input a label; no heading level is skipped."""
    _, page = run_and_page()
    assert all(table.all("caption") for table in page.all("table"))
    assert all("scope" in th.attributes for th in page.all("th"))
    assert all(e.parent and e.parent.tag == "label" for tag in ("input", "select") for e in page.all(tag))
    levels = [int(e.tag[1]) for e in page.all() if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_emulated_figures_are_labelled() -> None:
    """If a run used a larger GPU limited to a T4's memory, its figures are labelled as never run on a T4."""
    _, page = run_and_page("emulated")
    said = "NVIDIA H200 capped at 14.2 GiB; never run on a T4"
    for section in ("answer", "variants", "cost", "provenance"):
        assert said in page.id(section).text
    assert "Tesla T4" not in page.text


def test_a_cpu_claims_nothing_about_a_gpu() -> None:
    """If a run was on a CPU, its page ranks variants by training work and says that it cannot tell what fits a T4."""
    _, page = run_and_page()
    assert "trained tokens × trainable parameters" in page.id("trade-off").text
    assert "measured on Example CPU" in page.id("cost").text
    assert not [svg for figure in page.all("figure") for svg in figure.all("svg") if "T4" in svg.text]
    assert "this run cannot tell whether it fits a T4" in page.id("answer").text


def test_three_traps_are_answered() -> None:
    """If a run is of the toy model, the page warns against copying the settings to another model.

    It also says that the run cannot tell whether the settings fit a T4, and which differences are too small to count.
    """
    _, page = run_and_page()
    assert "Do not copy these settings to another model" in page.all("header")[0].text
    assert "this run cannot tell whether it fits a T4" in page.id("answer").text
    told = page.id("variants").all("table", class_="pairwise")[0]
    assert "cannot be told apart" in told.all("caption")[0].text
    assert told.all("td", class_="unclear")


def test_cuda_ranks_by_seconds_and_shows_gpu_memory() -> None:
    """If a run was on a CUDA GPU, its page ranks variants by training time and gives three figures of GPU memory."""
    _, page = run_and_page("t4")
    assert "Training time" in page.id("trade-off").text
    assert "T4 14.2 GiB" in page.id("memory-trade-off").all("svg")[0].text
    assert "T4" not in page.id("trade-off").all("svg")[0].text
    assert all(word in page.id("cost").text for word in ("Peak allocated", "Peak reserved", "Peak on device"))


def test_nothing_finished_still_renders() -> None:
    """If no training finished, or there are no variants, the page can still be made."""
    made, _ = run_and_page()
    failed = [replace(v, statuses=(Status.FAILED,) * 2, rates={}, costs=(), training=()) for v in made.variants]
    empty = replace(made, variants=tuple(failed), samples=(), choice=Choice(None, ("None.",)), confirmed=None)
    assert "No training steps were logged" in parse(render(empty, now="now")).id("learning").text
    parse(render(replace(empty, variants=()), now="now"))


def test_the_page_is_small() -> None:
    """The page of 24 variants and 200 cases, with answers of 250 characters, is smaller than 6 MB."""
    made = results(24, 200, hostile=False, length=250)
    assert len(render(made, now="now").encode()) < 6_000_000


def test_display(here: Path) -> None:
    """`harness.display` shows a run's whole report in a notebook cell, with its own style and script."""
    made = results(6, 8)
    for displayed in (harness.display(Run(made)), harness.display("first")):
        html = displayed._repr_html_()
        assert html.startswith("<style>")
        page = parse(html)
        assert not page.all("html")
        assert not page.all("meta")
        assert len(page.all("script")) == 1
        assert records(page)
        assert len(repr(displayed)) < 100
    texts = [text for record in records(parse(harness.display(Run(made)).html)) for text in record.texts]
    assert any(HOSTILE[0] in text for text in texts)


def test_the_sample_is_complete() -> None:
    """The committed sample report has three seeds and a timeline, is smaller than 1.5 MB, and has no local path."""
    file = Path(__file__).parents[2] / "reports" / "sample" / "report.html"
    html = file.read_text(encoding="utf-8")
    page = parse(html)
    assert file.stat().st_size < 1_500_000
    assert "3 seeds" in page.all("header")[0].text
    assert page.id("timeline").all("svg")
    assert len(records(page)) > 100
    assert not re.search(r"/(home|root|tmp|work|Users)/", html)


def test_constant_cases_are_named() -> None:
    """The section of cases names the cases with the same verdict for the base model and every variant."""
    run, page = run_and_page()
    sentence = constant_cases(run).sentence
    assert sentence
    assert sentence in page.id("cases").text
