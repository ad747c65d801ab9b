"""The same prompts asked at every stage from adapter to GGUF."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.answers import Answer


class Stage(StrEnum):
    """A parity stage: a step from the evaluated model to the GGUF file that runs at home."""

    ADAPTER = "NF4 + adapter"
    MERGED = "merged"
    RELOADED = "reloaded from disk"
    F16 = "GGUF f16"
    Q8_0 = "GGUF q8_0"
    Q4_K_M = "GGUF q4_k_m"


@dataclass(frozen=True)
class Distance:
    """How far a stage's logits are from those of the stage before, over the same tokens."""

    largest: float
    """The largest difference of a logit, as a share of the largest logit."""
    mean: float
    """The mean difference likewise."""
    agreement: float
    """Share of the tokens after which both find the same next token likeliest."""
    tokens: int


@dataclass(frozen=True)
class StageAnswers:
    """The answers of one stage, in the order of the prompts."""

    stage: Stage
    answers: tuple[Answer, ...]
    distance: Distance | None = None
    """None for the first."""
    tokenised_alike: int | None = None
    """Number of prompts that llama.cpp tokenises as the run did; None at stages without llama.cpp."""


@dataclass(frozen=True)
class Verdicts:
    """A stage's answers, judged: one entry per case and assertion, in `Parity`'s order."""

    stage: Stage
    passed: tuple[bool | None, ...]
    """None where it could not be decided."""
    texts: tuple[str, ...]
    """One per case."""
    distance: Distance | None
    tokenised_alike: int | None


@dataclass(frozen=True)
class VerdictChange:
    """An assertion whose verdict differs from the first stage's, and the first stage at which it differs."""

    case: str
    assertion: str
    stage: Stage
    before: bool | None
    after: bool | None
    back: bool = False
    """The last stage's verdict is the first stage's again."""


@dataclass(frozen=True)
class Parity:
    """parity/*.json: the answers at every stage from adapter to GGUF, each prompt once, without sampling."""

    format: int
    suite: str
    variant: str
    seed: int
    training: str
    cases: tuple[str, ...]
    assertions: tuple[tuple[str, str], ...]
    """Case id and the assertion's name."""
    stages: tuple[Verdicts, ...]
    turns: tuple[VerdictChange, ...]
    versions: dict[str, str]
    device: str
    finished: str
