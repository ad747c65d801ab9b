"""Parity checks: answers to the same prompts at every stage from the adapter to a GGUF file, and their differences."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.answers import Answer


class Stage(StrEnum):
    """One form of a trained model on the way from the evaluated adapter to a GGUF file."""

    ADAPTER = "NF4 + adapter"
    MERGED = "merged"
    RELOADED = "reloaded from disk"
    F16 = "GGUF f16"
    F16_LORA = "GGUF f16 + LoRA"
    """The adapter's GGUF file over that of the base, in half precision."""
    Q8_0 = "GGUF q8_0"
    Q4_K_M = "GGUF q4_k_m"
    Q4_K_M_LORA = "GGUF q4_k_m + LoRA"
    """The adapter's GGUF file over that of the quantised base. In the stage before, adapter and base are quantised."""


@dataclass(frozen=True)
class Distance:
    """Difference between the logits of a stage and those of the stage before it, over the same tokens."""

    largest: float
    """The largest absolute difference, as a share of the largest logit."""
    mean: float
    """The mean absolute difference, as a share of the largest logit."""
    agreement: float
    """Share of the tokens after which both stages have the same most likely next token."""
    tokens: int


@dataclass(frozen=True)
class StageAnswers:
    """The answers of one stage, in the order of the prompts."""

    stage: Stage
    answers: tuple[Answer, ...]
    distance: Distance | None = None
    """The distance from the stage before; None for the first stage."""
    tokenised_alike: int | None = None
    """Number of prompts that llama.cpp tokenises in the same way as the run; None at stages without llama.cpp."""


@dataclass(frozen=True)
class Verdicts:
    """The scored answers of one stage: one verdict for each row of `Parity.assertions`."""

    stage: Stage
    passed: tuple[bool | None, ...]
    """Whether each assertion passed; None if that could not be computed."""
    texts: tuple[str, ...]
    """One answer per case."""
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
    """Whether the verdict of the last stage is nevertheless that of the first stage."""


@dataclass(frozen=True)
class Parity:
    """parity/*.json: the scored answers of every stage from adapter to GGUF. Each prompt is answered once, greedily."""

    format: int
    suite: str
    variant: str
    seed: int
    training: str
    cases: tuple[str, ...]
    assertions: tuple[tuple[str, str], ...]
    """Pairs of a case id and the name of one of its assertions."""
    stages: tuple[Verdicts, ...]
    turns: tuple[VerdictChange, ...]
    """The assertions whose verdict differs between stages."""
    versions: dict[str, str]
    device: str
    finished: str
