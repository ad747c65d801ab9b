"""Read the sizes of a model's matrices from its config.json. Predictions of memory and time use these sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.errors import ModelError

SUPPORTED = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types whose decoder layers have the parts that `ModelShape` counts: seven matrices, two norms, gated SiLU."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder-only model with gated MLPs (Llama, Mistral, Qwen)."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether embeddings and head are one matrix."""
    biases: bool = False
    """Whether the projections of query, key and value have biases."""

    def linears(self) -> dict[str, tuple[int, int]]:
        """Return the input and output sizes of each quantised matrix of one layer."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, query),
            "k_proj": (self.hidden, key),
            "v_proj": (self.hidden, key),
            "o_proj": (query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def quantised(self) -> int:
        """Number of parameters in the quantised matrices of all layers."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears().values())

    @property
    def embedded(self) -> int:
        """Number of parameters in embeddings and head, which stay in 16 bits."""
        return (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def others(self) -> int:
        """Number of parameters in norms and biases."""
        biases = sum(self.linears()[name][1] for name in ("q_proj", "k_proj", "v_proj")) if self.biases else 0
        return self.layers * (2 * self.hidden + biases) + self.hidden

    @property
    def parameters(self) -> int:
        return self.quantised + self.embedded + self.others

    def trainable(self, rank: int, modules: str | tuple[str, ...]) -> int:
        """Return the number of parameters of a LoRA adapter.

        Raises:
            ModelError: a target module is not one of the quantised matrices of a layer.
        """
        return self.layers * sum(self.adapted(rank, modules))

    def adapted(self, rank: int, modules: str | tuple[str, ...]) -> tuple[int, ...]:
        """Return the number of parameters of each tensor of a LoRA adapter in one layer.

        Each adapted matrix has two tensors: rank x inputs, and outputs x rank (Hu et al., 2021).

        Raises:
            ModelError: a target module is not one of the quantised matrices of a layer.
        """
        linears = self.linears()
        names = tuple(linears) if isinstance(modules, str) else modules
        if unknown := [name for name in names if name not in linears]:
            raise ModelError(f"the model has no module {unknown[0]!r}", remedy=f"Choose among {', '.join(linears)}.")
        return tuple(rank * size for name in names for size in linears[name])


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape that a config.json describes. It has the keys of transformers' Llama, Mistral or Qwen.

    Raises:
        ModelError: the architecture is not supported, or a size is missing or not a positive number.
    """
    kind = config.get("model_type")
    if kind not in SUPPORTED:
        remedy = f"Name a model of type {', '.join(sorted(SUPPORTED))}, or train without a prediction."
        raise ModelError(f"memory and time cannot be predicted for models of type {kind!r}", remedy=remedy)
    hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    return ModelShape(
        hidden=hidden,
        layers=_size(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_size(config, "num_key_value_heads", heads),
        head_dim=_size(config, "head_dim", max(1, hidden // heads)),
        intermediate=_size(config, "intermediate_size"),
        vocabulary=_size(config, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
        biases=kind == "qwen2" or bool(config.get("attention_bias", False)),
    )


def _size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(
            f"config.json: {name} is {value!r}, but must be a positive number", remedy="Download the model again."
        )
    return value
