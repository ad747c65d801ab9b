"""Tests of the figures that measure a judge."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.analysis.judging import judging
from harness.core.judges import Judging, Reply
from harness.core.run_results import Results
from harness.core.suite import Assertion, JudgeRef
from harness.scoring import Opinions, Scoring
from tests.support import synthetic_runs

JUDGE = JudgeRef("tester", "https://h/v1", 3)
RUBRIC = Assertion("llm-rubric", "is good")
Verdict = Callable[[str, int], bool | None]
"""Whether a judge accepts the text of a question when it is asked for the n-th time; None: it does not answer."""


@pytest.fixture(scope="module")
def results() -> Results:
    """Return a synthetic run of two variants on 40 cases, with a criterion for a judge after each plain assertion."""
    found = synthetic_runs.results(2, 40, hostile=False, failures=False, confirm=0)
    cases = tuple(replace(case, assertions=(*case.assertions, RUBRIC)) for case in found.run.suite.cases)
    return replace(found, run=replace(found.run, suite=replace(found.run.suite, cases=cases, judge=JUDGE)))


def judged_by(results: Results, verdict: Verdict) -> Judging:
    """Return the figures about a judge that gives these verdicts."""
    opinions = Opinions(named=True)
    judging(results, Scoring(opinions=opinions))
    for key, question in opinions.questions.items():
        found = verdict(question.text, question.repeat)
        if found is not None:
            opinions.replies[key] = Reply(key, json.dumps({"pass": found, "score": float(found)}), 100, 10)
    made = judging(results, Scoring(opinions=opinions))
    assert made is not None
    return made


def truth(text: str, _repeat: int) -> bool:
    return "It is good" in text


def noisy(flips: float, seed: int) -> Verdict:
    """Return a judge that gives the wrong verdict with a chance of `flips`, anew for every question."""
    rng = random.Random(seed)
    return lambda text, repeat: truth(text, repeat) is not (rng.random() < flips)


def test_a_perfect_judge_agrees_and_never_contradicts_itself(results: Results) -> None:
    """A judge that always says the truth agrees with the plain assertions everywhere, and is asked about 30 again."""
    found = judged_by(results, truth)
    assert found.agreement is not None
    assert found.contradictions is not None
    assert (found.agreement.value, found.contradictions.value, found.contradictions.of) == (1, 0, 30)
    assert 0 < found.contradictions.high < 0.2
    assert (found.again, found.tokens_read) == (60, 100 * (found.questions + 60))


def test_replies_without_a_verdict_are_paid_too(results: Results) -> None:
    """The cost counts every reply that is stored, with its tokens, also if it holds no verdict."""
    opinions = Opinions(named=True)
    judging(results, Scoring(opinions=opinions))
    first = {key: question for key, question in opinions.questions.items() if not question.repeat}
    opinions.replies = {key: Reply(key, "I would rather not say.", 100, 10) for key in first}
    found = judging(results, Scoring(opinions=opinions))
    assert found is not None
    assert (found.questions, found.again, found.contradictions) == (len(first), 0, None)
    assert (found.tokens_read, found.tokens_written) == (100 * len(first), 10 * len(first))


def test_judged_rates_are_those_of_the_verdicts(results: Results) -> None:
    """The rates of a judge that says the truth are those of the plain assertions, with differences from the base."""
    found = judged_by(results, truth)
    for rate in found.rates:
        row = next(each for each in (*results.every_base, *results.variants) if each.name == rate.variant)
        assert (rate.passed, rate.total) == (row.rates[rate.role].passed, row.rates[rate.role].total)
        if row.changes:
            assert rate.points == pytest.approx(row.changes[rate.role].points)


def test_a_judge_that_flips_coins_is_noise(results: Results) -> None:
    """A judge whose verdicts are coin tosses contradicts itself half of the time, and its noise exceeds differences."""
    found = judged_by(results, noisy(0.5, 1))
    assert found.contradictions is not None
    assert 0.3 < found.contradictions.value < 0.65
    assert any(rate.is_noise for rate in found.rates)


def test_the_chance_of_a_contradiction_is_covered(results: Results) -> None:
    """The 95% interval of the contradictions holds the true chance in at least 90% of simulated judges."""
    flips, rounds = 0.1, 60
    true = 2 * flips * (1 - flips)
    found = [judged_by(results, noisy(flips, seed)).contradictions for seed in range(rounds)]
    assert sum(share is not None and share.low <= true <= share.high for share in found) >= 0.9 * rounds


def test_the_noise_limits_what_contradictions_do(results: Results) -> None:
    """In at least 95% of simulated judges, a difference is moved by its noise at most from that of all judges' mean."""
    rows = [judged_by(results, noisy(0.15, seed)).rates for seed in range(60)]
    for place in range(len(rows[0])):
        own = [(row[place].points, row[place].noise) for row in rows]
        if own[0][0] is None:
            continue
        mean = sum(points for points, _ in own if points is not None) / len(own)
        within = [abs(points - mean) <= noise for points, noise in own if points is not None and noise is not None]
        assert sum(within) >= 0.95 * len(within) - 1


def test_missing_verdicts_are_counted_with_their_reasons(results: Results) -> None:
    """Answers without a verdict are left out of the rates, and counted by their reason."""
    found = judged_by(results, lambda text, repeat: None if "river" in text else truth(text, repeat))
    assert sum(found.absent.values()) > 0
    assert all("not asked" in reason for reason in found.absent)
    assert sum(rate.without for rate in found.rates) >= sum(found.absent.values())


def test_nothing_to_judge_is_nothing(results: Results) -> None:
    """Without a judge, or without an assertion for one, there are no figures."""
    plain = tuple(replace(case, assertions=case.assertions[:1]) for case in results.run.suite.cases)
    for change in ({"judge": None}, {"cases": plain}):
        suite = replace(results.run.suite, **change)  # type: ignore[arg-type]
        assert judging(replace(results, run=replace(results.run, suite=suite)), Scoring()) is None
