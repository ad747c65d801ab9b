"""An answer to a case, judged: every assertion a `Check` with its reason, all of them one `Score`.

`text`, `structure` and `similarity` judge from the answer's text and the assertion alone; `outside` also needs a
`Scoring`, which says what it may reach, and `likelihood` the log-probabilities that come with an answer. A kind of
judge that needs other evidence gets its own module, a place in `Context` and a line in `INFORMED`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from harness.records import Answer, Assertion, Case, Check, Score
from harness.scorers import likelihood, outside, similarity, structure, text
from harness.scorers.findings import CannotScoreError, Context, Finding, Scoring, quote

__all__ = ["INFORMED", "JUDGES", "SET", "Scoring", "code_of", "judge", "score", "scorer"]
SET = "assert-set"
NEARLY = 1e-9
"""Weighted means are sums of floats: 0.1 + 0.2 reaches a threshold of 0.3."""

JUDGES: dict[str, text.Judge] = {**text.JUDGES, **structure.JUDGES, **similarity.JUDGES}
"""Assertion types, without `not-`, that need the answer only."""
INFORMED: dict[str, outside.Judge] = {**outside.JUDGES, **likelihood.JUDGES}
"""Assertion types that need a `Context`."""


def score(case: Case, answer: Answer | str, scoring: Scoring = Scoring()) -> Score:  # noqa: B008
    """The weighted mean of the assertions' scores; the answer is stripped of white space around it.

    A text is judged as an answer without log-probabilities. Judging ends at the first assertion that cannot be decided:
    there is no score then, and the reason is its error.
    """
    given = answer if isinstance(answer, Answer) else None
    stripped, context = (given.text if given else str(answer)).strip(), Context(case, scoring, given)
    checks: list[Check] = []
    for assertion in case.assertions:
        checks.append(judge(assertion, stripped, context))
        if checks[-1].score is None:
            error = f"{checks[-1].assertion}: {checks[-1].reason}"
            return Score(case.id, passed=False, value=None, checks=tuple(checks), error=error)
    value, passed = _combined(case.assertions, checks, case.threshold)
    return Score(case.id, passed, value, tuple(checks), metrics=_metrics(case.assertions, checks))


def scorer(scoring: Scoring) -> Callable[[Case, Answer], Score]:
    """`score` with a memory: most variants give many equal answers, and each is judged once.

    Answers are equal where all that their case's assertions look at is: the text, and for some the log-probabilities.
    """
    known: dict[tuple[object, ...], Score] = {}
    likely: dict[str, bool] = {}

    def remember(case: Case, answer: Answer) -> Score:
        if case.id not in likely:
            likely[case.id] = any(one.type in likelihood.JUDGES for one in _all(case.assertions))
        more = (answer.likelihood, answer.reference, answer.choices) if likely[case.id] else ()
        key = (case.id, answer.text, *more)
        if key not in known:
            known[key] = score(case, answer, scoring)
        return known[key]

    return remember


def _all(assertions: Iterable[Assertion]) -> Iterator[Assertion]:
    """Assertions, and those within sets."""
    for assertion in assertions:
        yield assertion
        yield from _all(assertion.children)


def judge(assertion: Assertion, answer: str, context: Context) -> Check:
    """One assertion's verdict; its score is None, and the reason says why, when there can be none."""
    try:
        if assertion.type == SET:
            finding, children = _judge_set(assertion, answer, context)
        else:
            finding, children = _find(assertion, answer, context), ()
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
    """An assertion as a reader would name it: `icontains "40 dollars"`."""
    if assertion.type == SET:
        return f"{assertion.name} of {len(assertion.children)}"
    return assertion.name if assertion.value is None else f"{assertion.name} {quote(assertion.value)}"


def code_of(assertions: Iterable[Assertion]) -> list[str]:
    """What code assertions would run, each once, sets included: what `Scoring.allow_code` is about."""
    found: dict[str, None] = {}
    for assertion in assertions:
        names = code_of(assertion.children) if assertion.type == SET else [outside.code_of(assertion)]
        found |= dict.fromkeys(name for name in names if name)
    return list(found)


def _find(assertion: Assertion, answer: str, context: Context) -> Finding:
    if assertion.type in JUDGES:
        return JUDGES[assertion.type](answer, assertion)
    if assertion.type in INFORMED:
        return INFORMED[assertion.type](answer, assertion, context)
    raise CannotScoreError("this version has no such assertion")


def _judge_set(assertion: Assertion, answer: str, context: Context) -> tuple[Finding, tuple[Check, ...]]:
    checks: list[Check] = []
    for child in assertion.children:
        checks.append(judge(child, answer, context))
        if checks[-1].score is None:
            raise CannotScoreError(f"{checks[-1].assertion}: {checks[-1].reason}")
    value, passed = _combined(assertion.children, checks, assertion.threshold)
    failed = [f"{check.assertion}: {check.reason}" for check in checks if not check.passed]
    asked = "" if assertion.threshold is None else f", score {value:.3g} where {assertion.threshold:g} is asked"
    words = f"{len(checks) - len(failed)} of {len(checks)} hold{asked}"
    return Finding(passed, "; ".join([words, *failed[:3]]), value), tuple(checks)


def _combined(assertions: Sequence[Assertion], checks: Sequence[Check], threshold: float | None) -> tuple[float, bool]:
    """The weighted mean, and whether that passes: by the threshold where there is one, else when every check does."""
    pairs = list(zip(assertions, checks, strict=True))
    total = sum(assertion.weight for assertion in assertions)
    value = sum(a.weight * (c.score or 0.0) for a, c in pairs) / total if total else 1.0
    if threshold is not None:
        return value, value >= threshold - NEARLY
    return value, all(check.passed for assertion, check in pairs if assertion.weight)


def _metrics(assertions: Sequence[Assertion], checks: Sequence[Check]) -> dict[str, float]:
    """The weighted mean score of each named metric, those within sets included."""
    sums: dict[str, tuple[float, float]] = {}
    for name, weight, value in _named(assertions, checks, 1.0):
        total, weights = sums.get(name, (0.0, 0.0))
        sums[name] = (total + weight * value, weights + weight)
    return {name: total / weights for name, (total, weights) in sums.items()}


def _named(
    assertions: Sequence[Assertion], checks: Sequence[Check], share: float
) -> Iterator[tuple[str, float, float]]:
    for assertion, check in zip(assertions, checks, strict=True):
        # One of weight 0 is there for its metric.
        weight = share * (assertion.weight or 1.0)
        if check.metric and check.score is not None:
            yield check.metric, weight, check.score
        yield from _named(assertion.children, check.children, weight)
