"""Tests of the figures and example answers in the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.aggregate import assemble
from harness.core.run_results import Results
from harness.core.suite import Case, Reducer, Role, Suite
from harness.export.model_card import evidence
from harness.export.source import Source
from harness.report.pass_rates import scores_by_role
from harness.storage.cache import Cache
from tests.support.synthetic_runs import case, manifest, record, score, suite, variants

(VARIANT,) = variants(1)


def run(asked: Suite, base: Mapping[str, str | Sequence[str]], tuned: Mapping[str, str | Sequence[str]]) -> Results:
    """Return the results of one variant under seed 0."""
    records = [record(None, base), record(VARIANT, tuned)]
    return assemble(manifest(asked, [VARIANT]), records, score, "2026-01-02T03:24:05+00:00")


def source(results: Results, folder: Path) -> Source:
    return Source(results.run, VARIANT, 0, "training", Cache(folder))


def grouped(cases: int, size: int) -> list[Case]:
    return [replace(case(f"c{n}", Role.GENERALISE), group=f"g{n // size}") for n in range(cases)]


def test_the_cards_intervals_are_the_pages(tmp_path: Path) -> None:
    """For a run with one seed, the card has the pass rates and intervals of the report, which counts groups."""
    asked = grouped(20, 5)
    tuned = {each.id: "good" if n < 12 else "bad" for n, each in enumerate(asked)}
    found = run(suite(asked), {each.id: "bad" for each in asked}, tuned)
    interval = evidence(source(found, tmp_path), found).rates[Role.GENERALISE]
    of_page = scores_by_role(found, found.samples)[VARIANT.name, Role.GENERALISE].span
    assert of_page
    assert (interval.low, interval.high) == pytest.approx((of_page.low, of_page.high))
    assert interval.cases < 10


def test_the_cards_rates_follow_the_suites_reducer(tmp_path: Path) -> None:
    """With the reducer `all`, a case of which one repeat fails counts as failed in the card, as in the report."""
    asked = replace(suite([case("a", Role.GENERALISE), case("b", Role.GENERALISE)]), repeats=2, reducer=Reducer.ALL)
    found = run(asked, {"a": ("bad", "bad"), "b": ("bad", "bad")}, {"a": ("good", "bad"), "b": ("good", "good")})
    assert evidence(source(found, tmp_path), found).rates[Role.GENERALISE].value == 0.5


def test_the_cards_examples_compare_first_repeats(tmp_path: Path) -> None:
    """With several repeats, the first answer of the base model stands beside the first answer of the adapter."""
    asked = replace(suite([case("a"), case("b")]), repeats=2)
    found = run(
        asked, {"a": ("bad 1", "bad 2"), "b": ("same", "other")}, {"a": ("good 1", "good 2"), "b": ("same", "x")}
    )
    shown = evidence(source(found, tmp_path), found).examples
    assert [(before, after) for _, before, after in shown] == [("bad 1", "good 1")]
