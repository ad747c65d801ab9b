"""Parity: find the stage of an export, from adapter to GGUF, at which an assertion's verdict first changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.core.answers import Answer
from harness.core.parity import Stage, StageAnswers, VerdictChange, Verdicts
from harness.core.scores import Score
from harness.core.suite import Assertion, Case

Scorer = Callable[[Case, Answer], Score]


def judged(found: StageAnswers, cases: Sequence[Case], score: Scorer) -> Verdicts:
    """Apply the suite's assertions to the answers of one stage."""
    passed = [
        verdict for case, given in zip(cases, found.answers, strict=True) for verdict in _each(case, given, score)
    ]
    texts = tuple(given.text for given in found.answers)
    return Verdicts(found.stage, tuple(passed), texts, found.distance, found.tokenised_alike)


def _each(case: Case, given: Answer, score: Scorer) -> list[bool | None]:
    """Return one verdict per assertion: None for one without a score, and for those after it, which do not run."""
    checks = score(case, given).checks
    known = [None if check.score is None else check.passed for check in checks]
    return [*known, *[None] * (len(case.assertions) - len(known))]


def assertions_of(cases: Sequence[Case]) -> tuple[tuple[str, str], ...]:
    """Return every assertion as the id of its case and a text such as `contains '42'`."""
    return tuple((case.id, _name(assertion)) for case in cases for assertion in case.assertions)


def _name(assertion: Assertion) -> str:
    value = "" if assertion.value is None else f" {assertion.value!r}"
    return f"{assertion.name}{value}"


def verdict_changes(assertions: Sequence[tuple[str, str]], stages: Sequence[Verdicts]) -> tuple[VerdictChange, ...]:
    """Return the assertions whose verdict differs between the first stage and a later one.

    They are ordered by the stage at which the verdict first differs.
    """
    found = []
    for number, (case, name) in enumerate(assertions):
        verdicts = [stage.passed[number] for stage in stages]
        first = next((at for at, verdict in enumerate(verdicts) if verdict != verdicts[0]), None)
        if first is not None:
            back = verdicts[-1] == verdicts[0]
            found.append(VerdictChange(case, name, stages[first].stage, verdicts[0], verdicts[first], back))
    order = list(Stage)
    return tuple(sorted(found, key=lambda change: order.index(change.stage)))
