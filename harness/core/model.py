"""References to base models, quantised base models and adapters on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.settings import Quantization
from harness.core.units import DeviceKind

TEMPLATE_DATE = "26 Jul 2024"
"""The date that chat templates receive as today's date. It is the default date in Llama 3.1's template."""


@dataclass(frozen=True)
class ModelRef:
    """A base model on this machine. `digest` covers all files that determine its answers."""

    name: str
    """The name that reports and messages use."""
    path: str
    digest: str
    revision: str = ""
    toy: bool = False
    note: str = ""
    shape_only: bool = False
    """If True, `path` contains only a configuration. The weights are then random, and pass rates mean nothing."""
    tokenizer: str = ""
    """The tokenizer's folder, if it is not `path`."""
    weights: str = ""
    """What the weights have been through before the run, such as `Q4_1, dequantised`; empty if they are as published.

    It is not empty for models that were made of a GGUF file; `path` is then a folder in the cache."""


@dataclass(frozen=True)
class SavedBase:
    """A quantised base model in the cache.

    It was quantised on a device of `kind`. The weights that quantisation leaves as they are have `compute_dtype`.
    """

    id: str
    model: str
    quantization: Quantization
    kind: DeviceKind
    compute_dtype: str


@dataclass(frozen=True)
class ConvertedModel:
    """A model in the cache that was made of the GGUF file `file`, whose SHA-256 is `digest`."""

    id: str
    file: str
    digest: str
    weights: str
    """What the weights have been through; see `ModelRef.weights`."""


@dataclass(frozen=True)
class AdapterRef:
    """An adapter that was not trained by the harness: `name` is its folder's name, `digest` covers its two files."""

    name: str
    path: str
    digest: str
    base: str
    """The base model named in the adapter's configuration."""
    rank: int
    target_modules: tuple[str, ...]
    trainable_parameters: int
