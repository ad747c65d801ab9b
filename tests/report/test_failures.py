"""Tests of how the report shows trials that did not finish."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.aggregate import assemble
from harness.core.training_outcome import Status
from harness.report import render, terminal
from harness.report.race import race
from tests.support.parsed_html import parse
from tests.support.report_runs import run_and_page
from tests.support.synthetic_runs import cases, manifest, record, score, suite, training, variants

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


def test_variants_that_left_a_race_are_listed_and_not_compared() -> None:
    """A variant that left a race has no rates and costs, is listed with its reason, and its savings are stated."""
    rows = [replace(each, settings=replace(each.settings, epochs=3.0)) for each in variants(2)]
    run = manifest(suite(cases(12)), rows, (0,))
    answers = dict.fromkeys((each.id for each in run.suite.cases), "good")
    why = "stopped after epoch 1 of 3: the other is better"
    part = record(rows[1], {}, status=Status.STOPPED, message=why, trained=training(steps=10))
    records = [record(None, answers), record(rows[0], answers, trained=training(steps=30)), part]
    made = assemble(run, records, score, "2026-01-02T03:24:05+00:00")
    left = made.variants[1]
    assert (left.rates, left.costs) == ({}, ())
    assert "Race: 1 of 2 variants stopped before the end of their training" in race(made)
    assert "This saved 33% of the grid's training" in race(made)
    section = parse(render(made, now="")).id("failures").text
    assert why in section
    assert race(made) in " ".join(section.split())
    assert race(made) in terminal.summary(made)
    assert left.name not in made.choice.eligible
    assert any("which left the race" in reason for reason in made.choice.reasons)
