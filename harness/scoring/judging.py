"""Score an answer to a case: each assertion gives a `Check` with a reason, and all checks give a `Score`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from harness.core.answers import Answer
from harness.core.errors import SuiteError
from harness.core.scores import Check, Score
from harness.core.suite import Assertion, Case
from harness.scoring.assertion_type import Need
from harness.scoring.assertion_types.sets import combine
from harness.scoring.findings import AnswerFailsError, CannotScoreError, Evidence, Finding, Scoring, quote
from harness.scoring.registry import ASSERTION_TYPES, check_values, needs
from harness.scoring.transforms import TransformFailedError, transformed


def score(case: Case, answer: Answer | str, scoring: Scoring = Scoring()) -> Score:  # noqa: B008
    """Score an answer: the weighted mean of its assertions' scores, and whether it passes.

    Surrounding white space is ignored. A plain text is scored as an answer without log-probabilities. If an assertion
    cannot be evaluated, the score has no value and its error gives the reason; later assertions are not evaluated.
    Assertions for a judge are evaluated, but count only if the judge `decides`.
    """
    evidence = _evidence(case, answer, scoring)
    checks: list[Check] = []
    for assertion in case.assertions:
        checks.append(judge(assertion, evidence))
        if checks[-1].score is None and (scoring.decides or not checks[-1].judged):
            error = f"{checks[-1].assertion}: {checks[-1].reason}"
            return Score(case.id, passed=False, value=None, checks=tuple(checks), error=error)
    counted = [pair for pair in zip(case.assertions, checks, strict=True) if scoring.decides or not pair[1].judged]
    if not scoring.decides and is_only_judged(case):
        return Score(case.id, passed=False, value=None, checks=tuple(checks), error=ONLY_JUDGED)
    value, passed = combine([each for each, _ in counted], [check for _, check in counted], case.threshold)
    return Score(case.id, passed, value, tuple(checks), metrics=_metrics(case.assertions, checks))


ONLY_JUDGED = "only a judge can score this answer, and the suite does not say that its verdicts decide"


def is_only_judged(case: Case) -> bool:
    """Whether a case has assertions for a judge, and no others that count."""
    plain = [assertion for assertion in case.assertions if not needs((assertion,), Need.JUDGE)]
    return len(plain) < len(case.assertions) and not any(assertion.weight for assertion in plain)


def judged(case: Case, answer: Answer | str, scoring: Scoring) -> Score:
    """Score an answer by the case's assertions for a judge alone. The score has no value if one has no verdict."""
    evidence = _evidence(case, answer, scoring)
    assertions = [assertion for assertion in case.assertions if needs((assertion,), Need.JUDGE)]
    checks = [judge(assertion, evidence) for assertion in assertions]
    if missing := next((check for check in checks if check.score is None), None):
        return Score(case.id, passed=False, value=None, checks=tuple(checks), error=missing.reason)
    value, passed = combine(assertions, checks, None)
    return Score(case.id, passed, value, tuple(checks))


def _evidence(case: Case, answer: Answer | str, scoring: Scoring) -> Evidence:
    given = answer if isinstance(answer, Answer) else None
    return Evidence((given.text if given else str(answer)).strip(), case, scoring, given)


def scorer(scoring: Scoring) -> Callable[[Case, Answer], Score]:
    """Return a function that scores answers and caches the results, since variants give many equal answers.

    Two answers are equal if their texts are equal and, if an assertion of the case needs log-probabilities, their
    log-probabilities are equal. The function raises SuiteError if an assertion has a value that does not fit its type,
    as in a stored suite that was edited.
    """
    known: dict[tuple[object, ...], Score] = {}
    by_log_probabilities: dict[str, bool] = {}

    def score_once(case: Case, answer: Answer) -> Score:
        if case.id not in by_log_probabilities:
            _check_values(case)
            by_log_probabilities[case.id] = needs(case.assertions, Need.LOG_PROBABILITIES)
        more = (answer.likelihood, answer.reference, answer.choices) if by_log_probabilities[case.id] else ()
        key = (case.id, answer.text, *more)
        if key not in known:
            known[key] = score(case, answer, scoring)
        return known[key]

    return score_once


def _check_values(case: Case) -> None:
    try:
        check_values(case.assertions)
    except ValueError as error:
        remedy = "The stored suite was edited. Restore it, or score the run again: harness score RUN --suite SUITE"
        raise SuiteError(f"case {case.id}: {str(error).splitlines()[0]}", remedy=remedy) from None


def judge(assertion: Assertion, evidence: Evidence) -> Check:
    """Evaluate one assertion. If that is not possible, the check has no score, and its reason is the error message.

    An answer to which the assertion's transforms cannot be applied fails it, even if the assertion is negated.
    """
    by_judge = needs((assertion,), Need.JUDGE)
    return replace(_checked(assertion, evidence), judged=True) if by_judge else _checked(assertion, evidence)


def _checked(assertion: Assertion, evidence: Evidence) -> Check:
    try:
        for expression in assertion.transforms:
            evidence = replace(evidence, text=transformed(evidence.text, expression))
    except TransformFailedError as problem:
        return Check(describe(assertion), False, str(problem), 0.0, assertion.metric)
    try:
        children = tuple(_children(assertion, evidence))
        finding = _find(assertion, replace(evidence, checks=children) if children else evidence)
    except AnswerFailsError as problem:
        return Check(describe(assertion), False, str(problem), 0.0, assertion.metric)
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
    """Describe an assertion briefly, such as `icontains "40 dollars"`."""
    if assertion.children:
        return f"{assertion.name} of {len(assertion.children)}"
    return assertion.name if assertion.value is None else f"{assertion.name} {quote(assertion.value)}"


def _children(assertion: Assertion, evidence: Evidence) -> Iterator[Check]:
    """Evaluate the assertions within a set; raise `CannotScoreError` if one of them cannot be evaluated."""
    for child in assertion.children:
        check = judge(child, evidence)
        if check.score is None:
            raise CannotScoreError(f"{check.assertion}: {check.reason}")
        yield check


def _find(assertion: Assertion, evidence: Evidence) -> Finding:
    kind = ASSERTION_TYPES.get(assertion.type)
    if kind is None:
        raise CannotScoreError(f"this version of the harness does not know the assertion type {assertion.type}")
    return kind.judge(evidence, assertion)


def _metrics(assertions: Sequence[Assertion], checks: Sequence[Check]) -> dict[str, float]:
    """Return the weighted mean score of each named metric; assertions within sets count too."""
    sums: dict[str, tuple[float, float]] = {}
    for name, weight, value in _named(assertions, checks, 1.0):
        total, weights = sums.get(name, (0.0, 0.0))
        sums[name] = (total + weight * value, weights + weight)
    return {name: total / weights for name, (total, weights) in sums.items()}


def _named(
    assertions: Sequence[Assertion], checks: Sequence[Check], share: float
) -> Iterator[tuple[str, float, float]]:
    for assertion, check in zip(assertions, checks, strict=True):
        # An assertion of weight 0 counts for its metric, with weight 1.
        weight = share * (assertion.weight or 1.0)
        if check.metric and check.score is not None:
            yield check.metric, weight, check.score
        yield from _named(assertion.children, check.children, weight)
