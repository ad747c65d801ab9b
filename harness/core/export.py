"""Exported models: targets of `harness export`, file types, and the record of an export."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.core.model import ModelRef
from harness.core.settings import Settings


class ExportKind(StrEnum):
    """A target of `harness export --to`."""

    ADAPTER = "adapter"
    MERGED = "merged"
    GGUF = "gguf"
    GGUF_LORA = "gguf-lora"
    OLLAMA = "ollama"
    HUB = "hub"


class MergeMode(StrEnum):
    """The base weights that an adapter's update is added to."""

    NF4_EXACT = "nf4-exact"
    """The weights of the evaluated base model, quantised to NF4 and dequantised. Merging gives the evaluated model."""
    FP16_BASE = "fp16-base"
    """The published weights. If the run used a quantised base model, merging gives a model that was not evaluated."""


class GgufType(StrEnum):
    """Number format of the weights in a GGUF file, named as in llama.cpp."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype (named as in torch) and shape of one tensor of a model that is to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ExportRecord:
    """export.json: what an exported folder contains, and which run and training it comes from."""

    format: int
    kind: ExportKind
    suite: str
    variant: str
    seed: int
    training: str
    model: ModelRef
    settings: Settings | None
    """Settings of the training; None for the base model by itself, which has none."""
    mode: MergeMode | None
    """The base weights of a merged model; None for an adapter, which is not merged."""
    dtype: str
    evaluated: bool
    """Whether the exported model gives the same results as the evaluated one, up to rounding to `dtype`."""
    note: str
    versions: dict[str, str]
