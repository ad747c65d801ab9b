"""The input and output of judges: `Evidence`, and a `Finding` or `CannotScoreError`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.answers import Answer
from harness.core.scores import Check
from harness.core.suite import Case

if TYPE_CHECKING:
    from harness.core.judges import Question, Reply

Pair = tuple[str, str]
SHOWN = 60
MAX_COMPARED = 1024 * 1024
"""Maximum length in characters of a text that is compared with a reference; longer texts would take too long."""


class AnswerFailsError(Exception):
    """The answer fails an assertion, even a negated one, for example because it cannot be parsed."""


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


class Opinions:
    """What other models were asked: replies of a judge by the key of the question, and similarities of texts.

    What has not been asked yet is collected in `questions` and `pairs`, to be asked all at once.
    """

    def __init__(self, *, named: bool = False) -> None:
        """Make an empty collection; `named` is whether a judge is named."""
        self.replies: dict[str, Reply] = {}
        self.similarities: dict[str, float] = {}
        """Similarities by the keys of `pair_key`."""
        self.questions: dict[str, Question] = {}
        """Questions without a reply, by their keys."""
        self.pairs: dict[str, Pair] = {}
        """Pairs of texts without a similarity, by their keys."""
        self.failures: dict[str, str] = {}
        """Why a question or a pair that was asked has no reply, by its key."""
        self.used: dict[str, None] = {}
        """Keys of the questions and pairs that were looked up, in their order."""
        self.failure = "the judge was not asked about this answer; run `harness score RUN`" if named else NO_JUDGE
        """Why there is no reply to a question that was not asked."""

    def reply(self, question: Question) -> str:
        """Return the judge's reply; raise `CannotScoreError` if there is none."""
        key = question.key
        self.used[key] = None
        if key not in self.replies:
            self.questions[key] = question
            raise CannotScoreError(self.failures.get(key, self.failure))
        return self.replies[key].text

    def similarity(self, first: str, second: str) -> float:
        """Return the similarity of two texts; raise `CannotScoreError` if it is not known."""
        pair = (first, second)
        key = pair_key(pair)
        self.used[key] = None
        if key not in self.similarities:
            self.pairs[key] = pair
            raise CannotScoreError(self.failures.get(key, "these texts were not compared; run `harness score RUN`"))
        return self.similarities[key]


def pair_key(pair: Pair) -> str:
    """Return the key under which the similarity of two texts is stored."""
    from harness.core.hashing import digest  # imports pydantic, which a notebook that scores answers does not need

    return digest({"similarity": pair})


NO_JUDGE = "no judge is named; name one with --judge"


@dataclass(frozen=True)
class Scoring:
    """Options for scoring: the suite's folder, in which external code is looked up, and whether such code may run."""

    folder: Path | None = None
    allow_code: bool = False
    opinions: Opinions = field(default_factory=Opinions)
    """What a judge replied, and how similar texts are."""
    decides: bool = False
    """Whether the verdicts of a judge count for the score of a case."""
    repeat: int = 0
    """Which of the judge's replies to the same question counts."""


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


def code_file(name: str, scoring: Scoring) -> Path:
    """Return the path of code in the suite's folder; raise `CannotScoreError` if it is missing or may not run."""
    if not scoring.allow_code:
        raise CannotScoreError(f"runs code ({name}), which only --allow-code permits")
    if scoring.folder is None:
        raise CannotScoreError(f"there is no folder to look for {name} in")
    folder = scoring.folder.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise CannotScoreError(f"{name} leads out of the suite's folder")
    if not path.is_file():
        raise CannotScoreError(f"there is no {name} beside the suite")
    return path


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
