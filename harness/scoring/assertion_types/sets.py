"""The assertion type `assert-set`, and the rule that combines several checks into one score."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.scores import Check
from harness.core.suite import Assertion
from harness.scoring.assertion_type import SHARE, AssertionType, Need, Value
from harness.scoring.findings import Evidence, Finding
from harness.scoring.values import nothing

SET = "assert-set"
TOLERANCE = 1e-9
"""Rounding tolerance of thresholds: for example, 0.1 + 0.2 must reach a threshold of 0.3."""


def combine(assertions: Sequence[Assertion], checks: Sequence[Check], threshold: float | None) -> tuple[float, bool]:
    """Return the weighted mean score, and whether the checks pass together.

    With a threshold, they pass if the mean reaches it. Otherwise, they pass if every check with a weight above 0
    passes.
    """
    pairs = list(zip(assertions, checks, strict=True))
    total = sum(assertion.weight for assertion in assertions)
    value = sum(a.weight * (c.score or 0.0) for a, c in pairs) / total if total else 1.0
    if threshold is not None:
        return value, value >= threshold - TOLERANCE
    return value, all(check.passed for assertion, check in pairs if assertion.weight)


def _assert_set(evidence: Evidence, assertion: Assertion) -> Finding:
    checks = evidence.checks
    value, passed = combine(assertion.children, checks, assertion.threshold)
    failed = [f"{check.assertion}: {check.reason}" for check in checks if not check.passed]
    asked = "" if assertion.threshold is None else f", score {value:.3g} where {assertion.threshold:g} is asked"
    words = f"{len(checks) - len(failed)} of {len(checks)} hold{asked}"
    return Finding(passed, "; ".join([words, *failed[:3]]), value)


TYPES = (
    AssertionType(
        SET,
        Value(nothing, optional=True),
        _assert_set,
        "passes all of these assertions, or their weighted mean score reaches `threshold`",
        "weighted mean",
        SHARE,
        frozenset({Need.ASSERTIONS}),
    ),
)
