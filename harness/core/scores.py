"""Scored answers: checks, scores, samples and pass rates."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.core.answers import Answer


@dataclass(frozen=True)
class Check:
    """The result of one assertion on one answer, with the reason in words."""

    assertion: str
    passed: bool
    reason: str
    score: float | None = None
    """From 0 to 1, inverted for a `not-` assertion; None if it could not be computed, and `reason` then says why."""
    metric: str = ""
    """The named metric that the score counts for."""
    children: tuple[Check, ...] = ()
    judged: bool = False
    """Whether the result is a judge's verdict, or contains one. It counts only if the suite says so."""


@dataclass(frozen=True)
class Score:
    """The score of one answer: `value` is the weighted mean of its checks' scores.

    The answer passes if all checks pass or, for a case with a `threshold`, if `value` reaches the threshold. If a check
    cannot be computed, it is the last one in `checks`, `value` is None and `error` gives the reason.
    """

    case: str
    passed: bool
    value: float | None
    checks: tuple[Check, ...] = ()
    error: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    """Weighted mean score of each named metric."""


@dataclass(frozen=True)
class Sample:
    """One answer to one case with its score. `variant` is `base` for the base model; `repeat` counts from 0."""

    variant: str
    seed: int
    case: str
    answer: Answer
    score: Score
    repeat: int = 0


@dataclass(frozen=True)
class Rate:
    """A pass rate: `passed` of `total` answers pass. A case answered under three seeds counts three times.

    Repeats of a case count separately; with the reducer `all` or `any`, they count as one answer.
    """

    passed: int
    total: int

    @property
    def value(self) -> float | None:
        """The rate from 0 to 1; None without answers."""
        return self.passed / self.total if self.total else None
