"""Exported models: what they are and how they were made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.model import ModelRef
from harness.core.settings import Settings as Settings


class MergeMode(StrEnum):
    """To what an adapter's update is added."""

    NF4_EXACT = "nf4-exact"
    """The base as it was evaluated: quantised to NF4 and back. The result is the model that was evaluated."""
    FP16_BASE = "fp16-base"
    """The base as it was published. Where the run was quantised, the result is a model that nobody evaluated."""


class GgufType(StrEnum):
    """How llama.cpp's file holds the weights, as llama.cpp calls it."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a model that is being written; `dtype` as torch calls it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class ExportKind(StrEnum):
    """A target of `harness export --to`."""

    ADAPTER = "adapter"
    MERGED = "merged"
    GGUF = "gguf"
    NOTEBOOK = "notebook"
    HUB = "hub"


@dataclass(frozen=True)
class ExportRecord:
    """export.json: what an exported folder is, and of which run."""

    format: int
    kind: ExportKind
    suite: str
    variant: str
    seed: int
    training: str
    model: ModelRef
    settings: Settings
    mode: MergeMode | None
    """None for an adapter, which is added to nothing yet."""
    dtype: str
    evaluated: bool
    """Whether it computes what the run evaluated, up to the rounding of `dtype`."""
    note: str
    versions: dict[str, str]
