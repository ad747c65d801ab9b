"""Tests that the page and the terminal show what a judge said, with a basis of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness import report
from harness.core.judges import JudgedRate, Judging, Share
from harness.core.suite import JudgeRef, Role
from harness.report import terminal
from harness.report.judged import judged, sentences
from tests.support import synthetic_runs

FOUND = Judging(
    JudgeRef("tester<b>", "https://h/v1"),
    questions=60,
    again=20,
    asked=5,
    tokens_read=1234,
    tokens_written=56,
    rates=(
        JudgedRate("base", Role.RETAIN, 9, 10, 0, 0.6, 0.98),
        JudgedRate("r=2", Role.RETAIN, 8, 10, 1, 0.5, 0.94, -10, -30, 12, noise=14.0),
    ),
    contradictions=Share(0.1, 0.04, 0.22, 30),
    agreement=Share(0.8, 0.66, 0.9, 40),
    absent={"the judge cannot be reached: refused": 1},
)


def test_the_section_says_who_judged_and_how_far_to_trust_it() -> None:
    """The section names the judge, its contradictions, its agreement, what is noise, what is missing, and the cost."""
    text = " ".join(sentences(FOUND))
    assert text.startswith("Judged by tester<b> at h, a model: its verdicts are opinions, and they decide nothing.")
    for words in (
        "judged 30 answers 3 times: two of its verdicts on the same answer differ with a chance of 10% (95% interval",
        "on 80% (95% interval 66% to 90%) of 40 answers",
        "On retain cases, its contradictions alone can make a larger difference than that between the base model and",
        "base model and `r=2`.",
        "1 answer without a verdict: the judge cannot be reached: refused",
        "80 questions, 20 of them only to measure how often it contradicts itself (5 asked now); 1,234 tokens read",
    ):
        assert words in text


@pytest.mark.parametrize(("points", "contradictions"), [(0.0, 0.1), (-10.0, 0.0)])
def test_noise_is_named_only_where_it_was_seen(points: float, contradictions: float) -> None:
    """Without a difference, or without a contradiction, nothing is said to be noise."""
    base, other = FOUND.rates
    share = Share(contradictions, 0.0, 0.22, 30)
    found = replace(FOUND, rates=(base, replace(other, points=points)), contradictions=share)
    assert "contradictions alone" not in " ".join(sentences(found))
    results = replace(synthetic_runs.results(2, 6, hostile=False, failures=False), judging=found)
    assert not any(row.is_noise for row in judged(results).rows)  # type: ignore[union-attr]


def test_without_an_agreement_the_section_speaks_of_answers() -> None:
    """If nothing shows whether the judge is right, the reason is that no answer has both kinds of results."""
    assert "No answer has both a verdict and plain assertions" in " ".join(sentences(replace(FOUND, agreement=None)))


def test_the_page_has_a_table_of_verdicts() -> None:
    """The page shows each judged rate with its interval, its difference, and the judge's noise beside it."""
    results = replace(synthetic_runs.results(2, 6, hostile=False, failures=False), judging=FOUND)
    page = report.render(results, now="2026-01-02T03:24:05+00:00")
    assert '<section id="judged">' in page
    assert page.count("Judged by tester&lt;b&gt; at h") == 1
    assert "-10 <small>-30 to +12</small>" in page
    assert "larger than the difference" in page
    assert "Judged by tester<b> at h" in terminal.summary(results)


def test_without_a_judge_there_is_no_section() -> None:
    """A run without a judge has neither the section nor a link to it."""
    results = synthetic_runs.results(2, 6, hostile=False, failures=False)
    assert judged(results) is None
    assert 'id="judged"' not in report.render(results, now="2026-01-02T03:24:05+00:00")
