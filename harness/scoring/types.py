"""An assertion type: what may be written for it, what it needs, and the function that judges it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.core.suite import Assertion
from harness.scoring.findings import Evidence, Finding
from harness.scoring.values import value_from_code

Judge = Callable[[Evidence, Assertion], Finding]
"""Decides whether an assertion without `not-` holds; raises `CannotScoreError` where that cannot be decided."""


class Need(StrEnum):
    """What an assertion type needs beside the answer's text and the assertion's value."""

    LOG_PROBABILITIES = "log-probabilities"
    """Those that the model gave to its answer, to the case's reference and to the case's choices."""
    REFERENCE = "reference"
    """The case must have one."""
    CHOICES = "choices"
    """The case must have some, and the assertion's value must be one of them."""
    VARIABLES = "variables"
    """The case's variables are stored with it."""
    ASSERTIONS = "assertions"
    """Other assertions, listed under `assert`."""


@dataclass(frozen=True)
class Value:
    """What may be written as the value of an assertion."""

    read: Callable[[Any], Any]
    """Turns the written value into the one that the judge is given; raises ValueError, the remedy in a second line."""
    optional: bool = False
    or_reference: bool = False
    """The case's reference is the value where none is written."""
    has_variables: bool = True
    """`{{name}}` in the value is replaced by the case's variable."""
    code: Callable[[Any], str] | None = None
    """Names the code that a value would run, or returns an empty text; None: no value runs code."""
    unsupported: Callable[[Any], str] = value_from_code
    """Says what of a value that promptfoo accepts is not supported here, or returns an empty text."""


@dataclass(frozen=True)
class Threshold:
    """The thresholds that may be written."""

    most: float
    least: float | None = None
    """Where this is given, a threshold must be written and must not be lower."""
    remedy: str = ""

    def check(self, name: str, written: float | None) -> None:
        """Raise ValueError for a threshold that is missing, too low or too high; `name` is the assertion's."""
        if self.least is not None and (written is None or written < self.least):
            raise ValueError(f"{name} needs a threshold of at least {self.least:g}\n{self.remedy}")
        if written is not None and written > self.most:
            raise ValueError(f"threshold: should be at most {self.most:g}, found {written:g}")


SHARE = Threshold(most=1.0)
NUMBER = Threshold(most=1e9)


@dataclass(frozen=True)
class AssertionType:
    """One row of the registry: everything that the package knows about an assertion type."""

    name: str
    """Without `not-`."""
    value: Value
    judge: Judge
    meaning: str
    """Completes "holds when the answer ..." in the table of assertion types."""
    score: str = "0 or 1"
    """What the table says of the score."""
    threshold: Threshold | None = None
    """None: a threshold that is written is ignored."""
    needs: frozenset[Need] = frozenset()

    def read(self, written: str, value: Any) -> Any:
        """Return the value as the judge takes it; the ValueError names the type as it was `written`."""
        try:
            return self.value.read(value)
        except ValueError as problem:
            words = str(problem)
            raise ValueError(words if words.startswith("not a regular") else f"{written} {words}") from None

    @property
    def can_stand_alone(self) -> bool:
        """Whether a CSV cell that holds only the name is this assertion, rather than a text to be equalled."""
        return self.value.optional and self.threshold is None

    def code_in(self, value: Any) -> str:
        """Name the code that an assertion of this type with this value would run; empty for most."""
        return self.value.code(value) if self.value.code else ""
