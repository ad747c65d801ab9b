"""Judged answers: checks, scores, samples and pass rates."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.core.answers import Answer


@dataclass(frozen=True)
class Check:
    """One assertion's verdict on one answer, in words that a reader can act on."""

    assertion: str
    passed: bool
    reason: str
    score: float | None = None
    """From 0 to 1, for a `not-` twin turned round; None, and `reason` says why, when it could not be computed."""
    metric: str = ""
    children: tuple[Check, ...] = ()


@dataclass(frozen=True)
class Score:
    """A case's score: the weighted mean of its checks' scores.

    Passed when every check is, or where the case has a `threshold`, when `value` reaches it. `value` is absent, and
    `error` says why, when it could not be computed; `checks` then end with the one that could not.
    """

    case: str
    passed: bool
    value: float | None
    checks: tuple[Check, ...] = ()
    error: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    """Weighted mean scores by named metric."""


@dataclass(frozen=True)
class Sample:
    """One answer to one case with its score. `variant` is `base` for the untrained model; `repeat` counts from 0."""

    variant: str
    seed: int
    case: str
    answer: Answer
    score: Score
    repeat: int = 0


@dataclass(frozen=True)
class Rate:
    """Cases passed of cases asked (a case asked under three seeds counts three times).

    Repeats count one by one, or as one where the suite's reducer is `all` or `any`.
    """

    passed: int
    total: int

    @property
    def value(self) -> float | None:
        return self.passed / self.total if self.total else None
