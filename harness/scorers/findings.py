"""What judges are given and what they say: a finding, or that there can be none."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.records import Answer, Case

SHOWN = 60
MAX_COMPARED = 1024 * 1024
"""Characters beyond which an answer is not compared with a reference: nobody waits for that."""


class CannotScoreError(Exception):
    """An assertion that cannot be decided; becomes the score's error, never a failed check."""


@dataclass(frozen=True)
class Finding:
    """Whether an assertion's plain form holds, a statement that is true either way, and how much it holds.

    `degree` is from 0 to 1; None for what holds or does not.
    """

    holds: bool
    statement: str
    degree: float | None = None


@dataclass(frozen=True)
class Scoring:
    """What judging may reach beside the answer: the suite's `folder`, and whether code in it may be run."""

    folder: Path | None = None
    allow_code: bool = False


@dataclass(frozen=True)
class Context:
    """What a judge may ask for that needs more than an answer's text and its assertion."""

    case: Case
    scoring: Scoring = field(default_factory=Scoring)
    given: Answer | None = None
    """The answer with its log-probabilities; None where only a text is judged."""


def bounded(*texts: str) -> None:
    """Refuses texts that would take too long to compare."""
    if any(len(text) > MAX_COMPARED for text in texts):
        raise CannotScoreError(f"longer than {MAX_COMPARED:,} characters, which is not compared")


def quote(value: Any) -> str:
    """A text, or several, in double quotes and not too long."""
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(quote(item) for item in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    cut = text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
    return json.dumps(cut, ensure_ascii=False) if isinstance(value, str) else cut
