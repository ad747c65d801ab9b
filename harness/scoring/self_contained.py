"""Which cases can be scored with nothing but the text of an answer, as in a notebook, and why others cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.core.suite import Assertion, Case
from harness.scoring.assertion_type import AssertionType, Need
from harness.scoring.judging import ONLY_JUDGED
from harness.scoring.registry import ASSERTION_TYPES, FAMILIES, all_of, needs

_NEEDS = {
    Need.JUDGE: "asks a model to judge the answer",
    Need.EMBEDDINGS: "compares texts with another model",
    Need.LOG_PROBABILITIES: "needs the log-probabilities of the answer",
}
_CODE = "runs code from outside of the harness"


@dataclass(frozen=True)
class SelfContained:
    """The assertions by which a case is scored, or the reason why it cannot be scored."""

    assertions: tuple[Assertion, ...] = ()
    """All assertions that count for the case, as in a run."""
    reason: str = ""
    """A sentence without a full stop; empty if the case can be scored."""


def self_contained(case: Case, *, decides: bool = False) -> SelfContained:
    """Return the assertions of a case if the text of an answer is all that they need.

    Assertions for a judge are left out, as they do not count in a run either, unless the judge `decides`.
    """
    counted = tuple(one for one in case.assertions if decides or not needs((one,), Need.JUDGE))
    if case.assertions and not any(one.weight for one in counted) and len(counted) < len(case.assertions):
        return SelfContained(reason=ONLY_JUDGED)
    reason = next(filter(None, map(_obstacle, all_of(counted))), "")
    return SelfContained(reason=reason) if reason else SelfContained(counted)


def _obstacle(assertion: Assertion) -> str:
    """Return why an assertion needs more than the text of the answer; empty if it does not."""
    kind = ASSERTION_TYPES.get(assertion.type)
    if kind is None:
        return f"this version of the harness does not know the assertion type {assertion.type}"
    reason = next((words for need, words in _NEEDS.items() if need in kind.needs), _CODE if kind.value.code else "")
    return f"{kind.name} {reason}" if reason else ""


def families(assertions: Iterable[Assertion]) -> frozenset[str]:
    """Return the names of the modules that define the types of these assertions."""
    used = {kind.name for kind in _types(assertions)}
    return frozenset(module.__name__ for module in FAMILIES if any(row.name in used for row in module.TYPES))


def packages(assertions: Iterable[Assertion]) -> tuple[str, ...]:
    """Return the packages, by their names for pip, with which these assertions are judged."""
    return tuple(sorted({package for kind in _types(assertions) for package in kind.packages}))


def _types(assertions: Iterable[Assertion]) -> Iterator[AssertionType]:
    return (ASSERTION_TYPES[one.type] for one in all_of(assertions))
