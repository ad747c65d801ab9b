"""Judge an answer to a case: every assertion becomes a `Check` with its reason, and all checks together a `Score`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from harness.core.answers import Answer
from harness.core.scores import Check, Score
from harness.core.suite import Assertion, Case
from harness.scoring.findings import CannotScoreError, Evidence, Finding, Scoring, quote
from harness.scoring.registry import ASSERTION_TYPES, needs
from harness.scoring.sets import combined
from harness.scoring.types import Need


def score(case: Case, answer: Answer | str, scoring: Scoring = Scoring()) -> Score:  # noqa: B008
    """Return the weighted mean of the assertions' scores.

    White space around the answer is removed. A text is judged as an answer without log-probabilities. Judging ends at
    the first assertion that cannot be decided: there is no score then, and the reason is the score's error.
    """
    given = answer if isinstance(answer, Answer) else None
    evidence = Evidence((given.text if given else str(answer)).strip(), case, scoring, given)
    checks: list[Check] = []
    for assertion in case.assertions:
        checks.append(judge(assertion, evidence))
        if checks[-1].score is None:
            error = f"{checks[-1].assertion}: {checks[-1].reason}"
            return Score(case.id, passed=False, value=None, checks=tuple(checks), error=error)
    value, passed = combined(case.assertions, checks, case.threshold)
    return Score(case.id, passed, value, tuple(checks), metrics=_metrics(case.assertions, checks))


def scorer(scoring: Scoring) -> Callable[[Case, Answer], Score]:
    """Return `score` with a memory: most variants give many equal answers, and each is judged once.

    Answers are equal when everything that their case's assertions look at is equal: the text, and where an assertion
    needs them the log-probabilities.
    """
    known: dict[tuple[object, ...], Score] = {}
    by_log_probabilities: dict[str, bool] = {}

    def remember(case: Case, answer: Answer) -> Score:
        if case.id not in by_log_probabilities:
            by_log_probabilities[case.id] = needs(case.assertions, Need.LOG_PROBABILITIES)
        more = (answer.likelihood, answer.reference, answer.choices) if by_log_probabilities[case.id] else ()
        key = (case.id, answer.text, *more)
        if key not in known:
            known[key] = score(case, answer, scoring)
        return known[key]

    return remember


def judge(assertion: Assertion, evidence: Evidence) -> Check:
    """Judge one assertion; where it cannot be decided, the check's score is None and its reason says why."""
    try:
        children = tuple(_children(assertion, evidence))
        finding = _find(assertion, replace(evidence, checks=children) if children else evidence)
    except CannotScoreError as problem:
        return Check(describe(assertion), False, str(problem), None, assertion.metric)
    degree = float(finding.holds) if finding.degree is None else finding.degree
    return Check(
        describe(assertion),
        finding.holds is not assertion.negated,
        finding.statement,
        1 - degree if assertion.negated else degree,
        assertion.metric,
        children,
    )


def describe(assertion: Assertion) -> str:
    """Name an assertion as a reader would: `icontains "40 dollars"`."""
    if assertion.children:
        return f"{assertion.name} of {len(assertion.children)}"
    return assertion.name if assertion.value is None else f"{assertion.name} {quote(assertion.value)}"


def _children(assertion: Assertion, evidence: Evidence) -> Iterator[Check]:
    """Judge the assertions within a set; one that cannot be decided leaves the whole set undecided."""
    for child in assertion.children:
        check = judge(child, evidence)
        if check.score is None:
            raise CannotScoreError(f"{check.assertion}: {check.reason}")
        yield check


def _find(assertion: Assertion, evidence: Evidence) -> Finding:
    kind = ASSERTION_TYPES.get(assertion.type)
    if kind is None:
        raise CannotScoreError("this version has no such assertion")
    return kind.judge(evidence, assertion)


def _metrics(assertions: Sequence[Assertion], checks: Sequence[Check]) -> dict[str, float]:
    """Return the weighted mean score of each named metric, including those within sets."""
    sums: dict[str, tuple[float, float]] = {}
    for name, weight, value in _named(assertions, checks, 1.0):
        total, weights = sums.get(name, (0.0, 0.0))
        sums[name] = (total + weight * value, weights + weight)
    return {name: total / weights for name, (total, weights) in sums.items()}


def _named(
    assertions: Sequence[Assertion], checks: Sequence[Check], share: float
) -> Iterator[tuple[str, float, float]]:
    for assertion, check in zip(assertions, checks, strict=True):
        # An assertion of weight 0 counts for its metric only.
        weight = share * (assertion.weight or 1.0)
        if check.metric and check.score is not None:
            yield check.metric, weight, check.score
        yield from _named(assertion.children, check.children, weight)
