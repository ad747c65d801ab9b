"""A suite as the harness uses it: cases, assertions, training examples and decoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a case asks of the tuned model."""

    LEARN = "learn"
    GENERALISE = "generalise"
    RETAIN = "retain"
    AVOID = "avoid"


class Split(StrEnum):
    """`main` cases choose a variant; `confirm` cases are kept back to judge the choice."""

    MAIN = "main"
    CONFIRM = "confirm"


class LeakLabel(StrEnum):
    """Whether the training rows hold a case's prompt: the same words, nearly the same, or neither."""

    SEEN = "seen"
    NEAR_DUPLICATE = "near-duplicate"
    UNSEEN = "unseen"


class Reducer(StrEnum):
    """How the repeats of one case under one seed count."""

    MEAN = "mean"
    """Each counts; where one verdict is needed, the case passes when at least half of them do."""
    ALL = "all"
    """As one, which passes when all of them do."""
    ANY = "any"
    """As one, which passes when any of them does."""


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class Assertion:
    """One check of an answer. `type` is the plain name; `negated` says that it was written with `not-`."""

    type: str
    value: Any = None
    negated: bool = False
    weight: float = 1.0
    """Its share in the case's score; 0 counts for its `metric` only and never fails the case."""
    threshold: float | None = None
    metric: str = ""
    """The named metric that it counts for."""
    children: tuple[Assertion, ...] = ()
    """What an `assert-set` holds."""

    @property
    def name(self) -> str:
        return f"not-{self.type}" if self.negated else self.type


@dataclass(frozen=True)
class Case:
    """A test prompt with what its answer must fulfil: all `assertions`, or enough of them for `threshold`."""

    id: str
    messages: tuple[Message, ...]
    assertions: tuple[Assertion, ...]
    role: Role = Role.LEARN
    split: Split = Split.MAIN
    description: str = ""
    group: str = ""
    reference: str | None = None
    choices: tuple[str, ...] = ()
    """Answers of which the one that the model finds likeliest, token by token, is the one that it prefers."""
    line: int = 0
    threshold: float | None = None
    """The weighted score from which the case passes, whichever assertions fail; None: all must hold."""
    vars: dict[str, str] = field(default_factory=dict)
    """Kept for code beside the suite that asks for them."""
    critical: bool = False
    """Where a later run fails it under every seed and the baseline passed it so, that alone is a regression."""

    @property
    def prompt(self) -> str:
        """The last user message: what the case asks."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(frozen=True)
class Example:
    """One training row: a conversation whose assistant messages are learned from."""

    messages: tuple[Message, ...]
    line: int = 0


@dataclass(frozen=True)
class Leak:
    """How a case's prompt relates to the training rows: `line` is the nearest row's, unless the case is unseen."""

    label: LeakLabel
    line: int | None = None
    similarity: float | None = None
    """From 0 to 1, to the row in `line`."""


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: up to `max_new_tokens`, cut at the first of the `stop` strings.

    At temperature 0 each token is the likeliest one, above it is drawn from softmax(logits / temperature).
    """

    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    temperature: float = 0.0


@dataclass(frozen=True)
class Suite:
    name: str
    folder: str
    description: str
    cases: tuple[Case, ...]
    examples: tuple[Example, ...]
    objective: Role = Role.GENERALISE
    margin: float = 10.0
    """Points of pass rate that may be lost on `retain` and `avoid`."""
    decoding: Decoding = Decoding()
    system_prompt: str | None = None
    repeats: int = 1
    """How often each case is asked; the answers differ because they are drawn."""
    reducer: Reducer = Reducer.MEAN
    notices: tuple[str, ...] = ()
    """What was ignored or left out when the suite was read, for its reader."""

    def of(self, split: Split) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.split is split)
