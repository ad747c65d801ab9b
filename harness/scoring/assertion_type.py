"""The definition of an assertion type: its value, its threshold, its requirements, and its judge."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.core.suite import Assertion
from harness.scoring.findings import CannotScoreError, Evidence, Finding, Scoring
from harness.scoring.values import value_from_code

Judge = Callable[[Evidence, Assertion], Finding]
"""Evaluates an assertion without its `not-`; raises `CannotScoreError` if that is not possible."""


class Need(StrEnum):
    """A requirement of an assertion type, in addition to the answer's text and the assertion's value."""

    LOG_PROBABILITIES = "log-probabilities"
    """The model's log-probabilities of its answer, of the case's reference, and of the case's choices."""
    REFERENCE = "reference"
    """The case must have a reference."""
    CHOICES = "choices"
    """The case must have choices, and the assertion's value must be one of them."""
    VARIABLES = "variables"
    """The case must be stored with its variables."""
    JUDGE = "judge"
    """A model that judges the answer."""
    EMBEDDINGS = "embeddings"
    """A model that measures the similarity of texts."""
    ASSERTIONS = "assertions"
    """The assertion must list other assertions under `assert`."""


@dataclass(frozen=True)
class Value:
    """The rules for the value of an assertion type."""

    read: Callable[[Any], Any]
    """Validates the written value and converts it for the judge; raises ValueError with a remedy in the second line."""
    optional: bool = False
    """Whether the value may be missing."""
    or_reference: bool = False
    """Whether the case's reference is used if no value is written."""
    has_variables: bool = True
    """Whether `{{name}}` in the value is replaced by the case's variable."""
    code: Callable[[Any], str] | None = None
    """Returns the name of the code that a value runs, or an empty text; None if values of this type never run code."""
    file: Callable[[Any], str] | None = None
    """Returns the path of the file in the suite's folder that holds the code of a value, or an empty text."""
    unsupported_file: Callable[[str], str] | None = None
    """Describes the text of such a file that the harness does not support, or returns an empty text."""
    misnamed: Callable[[Any, str], str] | None = None
    """Describes a function that a value names and the text of its file cannot hold, or returns an empty text."""
    load: Callable[[Any, Scoring], None] | None = None
    """Runs the file of a value, and raises `CannotScoreError` if it does not hold the function that the value names."""
    compile: Callable[[Any, str], None] | None = None
    """Raises `CannotScoreError` if the code of a value, or the text of its file, is no program. It runs nothing."""
    unsupported: Callable[[Any], str] = value_from_code
    """Describes a value that promptfoo accepts and the harness does not support, or returns an empty text."""


@dataclass(frozen=True)
class Threshold:
    """The range of an assertion's threshold."""

    most: float
    least: float | None = None
    """The lowest threshold; if it is given, an assertion must have a threshold."""
    remedy: str = ""

    def check(self, name: str, written: float | None) -> None:
        """Raise ValueError if a threshold is missing, too low or too high; `name` is the type that messages name."""
        if self.least is not None and (written is None or written < self.least):
            raise ValueError(f"{name} needs a threshold of at least {self.least:g}\n{self.remedy}")
        if written is not None and written > self.most:
            raise ValueError(f"threshold: should be at most {self.most:g}, found {written:g}")


SHARE = Threshold(most=1.0)
NUMBER = Threshold(most=1e9)


@dataclass(frozen=True)
class Extra:
    """A package that is not always installed: the name of its module, and of the extra that installs it."""

    module: str
    name: str

    @property
    def remedy(self) -> str:
        return f"Install it: run `pip install '.[{self.name}]'` in a checkout of the harness."

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    def check(self) -> None:
        """Raise `CannotScoreError` if the package is not installed."""
        if not self.is_installed:
            raise CannotScoreError(f"needs the extra {self.name}, which is not installed. {self.remedy}")


@dataclass(frozen=True)
class AssertionType:
    """A row of the registry: the complete definition of an assertion type."""

    name: str
    """The name without `not-`."""
    value: Value
    judge: Judge
    meaning: str
    """Completes the sentence "Holds if the answer ..." in docs/assertions.md."""
    score: str = "0 or 1"
    """The score, as described in docs/assertions.md."""
    threshold: Threshold | None = None
    """The range of the threshold; None if a threshold is ignored."""
    needs: frozenset[Need] = frozenset()
    extra: Extra | None = None
    """The package that the judge needs and that is not always installed; None if there is none."""
    packages: tuple[str, ...] = ()
    """The packages, by their names for pip, that the judge imports."""

    def read(self, written: str, value: Any) -> Any:
        """Validate a value and convert it for the judge; error messages begin with the type as it was `written`."""
        try:
            return self.value.read(value)
        except ValueError as problem:
            words = str(problem)
            raise ValueError(words if words.startswith("not a regular") else f"{written} {words}") from None

    @property
    def can_stand_alone(self) -> bool:
        """Whether a CSV cell that holds only this name is an assertion, and not a text for `equals`."""
        return self.value.optional and self.threshold is None

    def code_in(self, value: Any) -> str:
        """Return the name of the code that an assertion with this value runs; empty if it runs none."""
        return self.value.code(value) if self.value.code else ""
