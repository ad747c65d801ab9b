"""Base models and adapters on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.settings import Quantization as Quantization
from harness.core.units import DeviceKind

TEMPLATE_DATE = "26 Jul 2024"
"""What chat templates are told that ask for today's date: what Llama 3.1's says where it is told none."""


@dataclass(frozen=True)
class ModelRef:
    """A base model on this machine: `name` as a person says it, `digest` over the files that determine it."""

    name: str
    path: str
    digest: str
    revision: str = ""
    toy: bool = False
    note: str = ""
    shape_only: bool = False
    """Only the configuration is in `path`: the weights are random, and nothing may be said of quality."""
    tokenizer: str = ""
    """The folder of its tokenizer where that is not `path`."""


@dataclass(frozen=True)
class SavedBase:
    """A base as the cache keeps it: quantised on a device of `kind`, with its other weights in `compute_dtype`."""

    id: str
    model: str
    quantization: Quantization
    kind: DeviceKind
    compute_dtype: str


@dataclass(frozen=True)
class AdapterRef:
    """An adapter that was trained elsewhere: `name` as its folder is called, `digest` over its two files."""

    name: str
    path: str
    digest: str
    base: str
    """The base model that its configuration names."""
    rank: int
    target_modules: tuple[str, ...]
    trainable_parameters: int
