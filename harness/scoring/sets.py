"""`assert-set`, several assertions that count as one, and the rule by which checks are combined into a score."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.scores import Check
from harness.core.suite import Assertion
from harness.scoring.findings import Evidence, Finding
from harness.scoring.types import SHARE, AssertionType, Need, Value
from harness.scoring.values import nothing

SET = "assert-set"
NEARLY = 1e-9
"""Tolerance of thresholds: weighted means are sums of floats, and 0.1 + 0.2 must reach a threshold of 0.3."""


def combined(assertions: Sequence[Assertion], checks: Sequence[Check], threshold: float | None) -> tuple[float, bool]:
    """Return the weighted mean score, and whether it passes.

    It passes when it reaches the threshold; without one, when every check with a weight above 0 passes.
    """
    pairs = list(zip(assertions, checks, strict=True))
    total = sum(assertion.weight for assertion in assertions)
    value = sum(a.weight * (c.score or 0.0) for a, c in pairs) / total if total else 1.0
    if threshold is not None:
        return value, value >= threshold - NEARLY
    return value, all(check.passed for assertion, check in pairs if assertion.weight)


def _assert_set(evidence: Evidence, assertion: Assertion) -> Finding:
    checks = evidence.checks
    value, passed = combined(assertion.children, checks, assertion.threshold)
    failed = [f"{check.assertion}: {check.reason}" for check in checks if not check.passed]
    asked = "" if assertion.threshold is None else f", score {value:.3g} where {assertion.threshold:g} is asked"
    words = f"{len(checks) - len(failed)} of {len(checks)} hold{asked}"
    return Finding(passed, "; ".join([words, *failed[:3]]), value)


TYPES = (
    AssertionType(
        SET,
        Value(nothing, optional=True),
        _assert_set,
        "fulfils all of these assertions, or enough of them for `threshold`",
        "weighted mean",
        SHARE,
        frozenset({Need.ASSERTIONS}),
    ),
)
