"""Finds out which questions a case asks a judge, by evaluating its assertions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from harness.core.answers import Answer
from harness.core.judges import Question
from harness.core.suite import Assertion, Case, Suite
from harness.scoring import Need, Opinions, Scoring, judge, needs
from harness.scoring.findings import Evidence


def evaluate(case: Case, answer: Answer, scoring: Scoring, wanted: Sequence[Need]) -> str:
    """Evaluate each assertion with one of these needs, and return why one of them has no score; empty if all have.

    What is not stored yet is noted in the opinions of `scoring`. An assertion in a set does not wait for the others.
    """
    evidence, missing = Evidence(answer.text.strip(), case, scoring, answer), ""
    for assertion in _leaves(case.assertions):
        if any(needs((assertion,), need) for need in wanted):
            check = judge(assertion, evidence)
            missing = missing or (check.reason if check.score is None else "")
    return missing


def judged_cases(suite: Suite) -> tuple[Case, ...]:
    """Return the cases that have an assertion for a judge."""
    return tuple(case for case in suite.cases if needs(case.assertions, Need.JUDGE))


def questions_about(case: Case, text: str) -> list[Question]:
    """Return the questions that a judge is asked about an answer with this text."""
    opinions = Opinions(named=True)
    evaluate(case, Answer(case.id, text, 0, False), Scoring(opinions=opinions), (Need.JUDGE,))
    return list(opinions.questions.values())


def _leaves(assertions: Iterable[Assertion]) -> Iterator[Assertion]:
    for assertion in assertions:
        yield from _leaves(assertion.children) if assertion.children else (assertion,)
