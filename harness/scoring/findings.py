"""The input and output of judges: `Evidence`, and a `Finding` or `CannotScoreError`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.answers import Answer
from harness.core.scores import Check
from harness.core.suite import Case

SHOWN = 60
MAX_COMPARED = 1024 * 1024
"""Maximum length in characters of a text that is compared with a reference; longer texts would take too long."""


class CannotScoreError(Exception):
    """An assertion could not be evaluated. It becomes the error of the score, not a failed check."""


@dataclass(frozen=True)
class Finding:
    """The result of an assertion, before `not-` is applied.

    `statement` describes the answer and is true whether or not the assertion is negated. `degree` is a score from 0 to
    1, or None for an assertion that only holds or does not hold.
    """

    holds: bool
    statement: str
    degree: float | None = None


@dataclass(frozen=True)
class Scoring:
    """Options for scoring: the suite's folder, in which external code is looked up, and whether such code may run."""

    folder: Path | None = None
    allow_code: bool = False


@dataclass(frozen=True)
class Evidence:
    """The input of a judge, in addition to its assertion."""

    text: str
    """The answer without surrounding white space."""
    case: Case
    scoring: Scoring = field(default_factory=Scoring)
    answer: Answer | None = None
    """The answer with its log-probabilities; None if only a text is judged."""
    checks: tuple[Check, ...] = ()
    """Results of the assertions within an `assert-set`, in their order."""


def bounded(*texts: str) -> None:
    """Raise `CannotScoreError` if a text is too long to be compared."""
    if any(len(text) > MAX_COMPARED for text in texts):
        raise CannotScoreError(f"a text longer than {MAX_COMPARED:,} characters is not compared")


def quote(value: Any) -> str:
    """Shorten a text, or each text of a list, to 60 characters and put it in double quotes."""
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(quote(item) for item in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    cut = text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
    return json.dumps(cut, ensure_ascii=False) if isinstance(value, str) else cut
