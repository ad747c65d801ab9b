"""What a judge is given and what it returns: evidence, and a finding or the reason why there is none."""

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
"""Longest text in characters that is compared with a reference; comparing a longer one would take too long."""


class CannotScoreError(Exception):
    """An assertion that cannot be decided; it becomes the score's error, never a failed check."""


@dataclass(frozen=True)
class Finding:
    """Whether an assertion without `not-` holds, a statement that is true either way, and a degree from 0 to 1.

    `degree` is None where an assertion holds or does not, with nothing in between.
    """

    holds: bool
    statement: str
    degree: float | None = None


@dataclass(frozen=True)
class Scoring:
    """What judges may use beside the answer: files in the suite's `folder`, and whether code there may run."""

    folder: Path | None = None
    allow_code: bool = False


@dataclass(frozen=True)
class Evidence:
    """Everything that a judge may look at beside its assertion."""

    text: str
    """The answer, without white space around it."""
    case: Case
    scoring: Scoring = field(default_factory=Scoring)
    answer: Answer | None = None
    """The answer with its log-probabilities; None where only a text is judged."""
    checks: tuple[Check, ...] = ()
    """Results of the assertions that an `assert-set` holds, in their order."""


def bounded(*texts: str) -> None:
    """Raise `CannotScoreError` for texts that would take too long to compare."""
    if any(len(text) > MAX_COMPARED for text in texts):
        raise CannotScoreError(f"longer than {MAX_COMPARED:,} characters, which is not compared")


def quote(value: Any) -> str:
    """Put a text, or each of several texts, in double quotes, shortened to 60 characters."""
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(quote(item) for item in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    cut = text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
    return json.dumps(cut, ensure_ascii=False) if isinstance(value, str) else cut
