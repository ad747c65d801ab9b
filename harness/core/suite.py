"""The data types of a suite: cases, assertions, training examples and decoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.core.errors import Place


class Role(StrEnum):
    """What a case tests: a training question, such a question in other words, an old ability, or unwanted behaviour."""

    LEARN = "learn"
    """A question from the training rows."""
    GENERALISE = "generalise"
    """A question from the training rows in other words."""
    RETAIN = "retain"
    """Something that the base model can do and must still do after training."""
    AVOID = "avoid"
    """Something that the tuned model must not start to do."""


class Split(StrEnum):
    """`main` cases are for choosing a variant; `confirm` cases are held out to check the choice."""

    MAIN = "main"
    CONFIRM = "confirm"


class LeakLabel(StrEnum):
    """Contamination of a case: whether a training row contains its prompt exactly, almost, or not at all."""

    SEEN = "seen"
    NEAR_DUPLICATE = "near-duplicate"
    UNSEEN = "unseen"


class Reducer(StrEnum):
    """How repeated answers to one case under one seed are combined."""

    MEAN = "mean"
    """Every answer counts. Where a single verdict is needed, the case passes if at least half of its answers pass."""
    ALL = "all"
    """The repeats count as one answer, which passes if all of them pass."""
    ANY = "any"
    """The repeats count as one answer, which passes if any of them passes."""


FILE_NAME = "suite.yaml"
"""Name of the file with the cases of a suite."""


@dataclass(frozen=True)
class Message:
    """One message of a conversation. `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True)
class Assertion:
    """One check of an answer. `type` is its name without the prefix `not-`, which `negated` stands for."""

    type: str
    value: Any = None
    negated: bool = False
    weight: float = 1.0
    """Weight in the case's score. At 0, the assertion counts only for its `metric` and cannot make the case fail."""
    threshold: float | None = None
    metric: str = ""
    """The named metric that the assertion's score counts for."""
    children: tuple[Assertion, ...] = ()
    """The assertions in an `assert-set`."""
    transforms: tuple[str, ...] = ()
    """promptfoo's transforms, which are applied to the answer before it is judged, in this order."""

    @property
    def name(self) -> str:
        """The type as it is written in a suite, with `not-` if negated."""
        return f"not-{self.type}" if self.negated else self.type


@dataclass(frozen=True)
class Case:
    """A test prompt with the assertions that its answer must pass: all of them, or enough to reach `threshold`."""

    id: str
    messages: tuple[Message, ...]
    assertions: tuple[Assertion, ...]
    role: Role = Role.LEARN
    split: Split = Split.MAIN
    description: str = ""
    group: str = ""
    reference: str | None = None
    choices: tuple[str, ...] = ()
    """Possible answers. The model prefers the choice with the highest mean log-probability per token."""
    line: int = 0
    """Line of the case in its file; 0 if unknown."""
    threshold: float | None = None
    """The lowest weighted score with which the case passes; None means that all assertions must pass."""
    vars: dict[str, Any] = field(default_factory=dict)
    """Variables of the case, available to the suite's own scoring code: values that JSON can hold."""
    critical: bool = False
    """Whether the case alone is a regression if it passes under every seed of the baseline and under none of a run."""
    file: str = ""
    """The file that holds the case, relative to the suite's folder: suite.yaml or a file that it includes."""

    @property
    def prompt(self) -> str:
        """The text of the last user message."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def place(self) -> Place:
        """Where the case is written, for messages."""
        return Place(self.file, self.line or None)


@dataclass(frozen=True)
class Example:
    """One training row: a conversation. The loss is computed on its assistant messages."""

    messages: tuple[Message, ...]
    line: int = 0
    """Line in the file of training rows; 0 for rehearsal rows, which are in no file."""

    @property
    def name(self) -> str:
        """Name of the row in messages."""
        if self.line:
            return f"training row {self.line}"
        asked = next((message.content for message in self.messages if message.role == "user"), "")
        return f"the rehearsal row that asks {asked[:60]!r}"


@dataclass(frozen=True)
class Leak:
    """Contamination of a case's prompt by the training rows."""

    label: LeakLabel
    line: int | None = None
    """Line of the most similar training row; None if the prompt is unseen."""
    similarity: float | None = None
    """Similarity to the row in `line`, from 0 to 1."""


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: at most `max_new_tokens` tokens, ending before the first of the `stop` strings.

    At temperature 0, each token is the most likely one; above 0, it is sampled from softmax(logits / temperature).
    """

    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    temperature: float = 0.0


@dataclass(frozen=True)
class JudgeRef:
    """A model that judges answers: one behind an OpenAI-compatible endpoint, or a local model."""

    model: str
    """The name by which the endpoint knows the model, or a model as `--model` takes it."""
    base_url: str = ""
    """The address of the endpoint, such as `https://api.openai.com/v1`; empty for a local model."""
    repeats: int = 3
    """How often the judge is asked about each answer of a sample, to measure how often it contradicts itself."""
    decides: bool = False
    """Whether its verdicts count for scores, pass rates and the choice of a variant, like plain assertions."""
    digest: str = ""
    """Digest of a local model's files; empty for an endpoint, whose model nobody can pin."""


@dataclass(frozen=True)
class Suite:
    """A suite: test cases, training rows, and how answers are generated and counted."""

    name: str
    folder: str
    description: str
    cases: tuple[Case, ...]
    examples: tuple[Example, ...]
    objective: Role = Role.GENERALISE
    margin: float = 10.0
    """Largest allowed net loss on `retain` and `avoid` cases, in points of what the base model passes."""
    decoding: Decoding = Decoding()
    system_prompt: str | None = None
    repeats: int = 1
    """Number of answers per case and seed; sampling makes them differ."""
    reducer: Reducer = Reducer.MEAN
    notices: tuple[str, ...] = ()
    """Messages to the user about parts of the suite that were ignored."""
    judge: JudgeRef | None = None
    """The model that judges answers for assertions such as `llm-rubric`; None: these give no score."""
    embedder: str = ""
    """The model that measures the similarity of texts for `similar`, by its name or folder; empty: the default."""
    file: str = FILE_NAME
    """Name of the file with the cases, in the folder."""

    @property
    def path(self) -> str:
        """What commands take as the suite: its folder or, if that holds no suite.yaml of its own, the file."""
        return self.folder if self.file == FILE_NAME else f"{self.folder}/{self.file}"

    @property
    def rows(self) -> tuple[tuple[Message, ...], ...]:
        """The conversations of the training rows, without their lines in the file."""
        return tuple(example.messages for example in self.examples)

    def of(self, split: Split) -> tuple[Case, ...]:
        """Return the cases of one split."""
        return tuple(case for case in self.cases if case.split is split)
