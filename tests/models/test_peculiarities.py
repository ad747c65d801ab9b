"""Tests of what users are told about the architecture of a model."""

from __future__ import annotations

import importlib

import pytest

from harness.models.peculiarities import experts_of, has_sdpa, peculiarities

KINDS = ("llama", "mistral", "gemma2", "gemma3_text", "qwen2", "qwen3", "phi3", "gpt2", "mixtral", "gpt_oss", "bloom")


@pytest.mark.parametrize("kind", KINDS)
def test_sdpa_is_read_from_the_source(kind: str) -> None:
    """Whether an architecture has SDPA is read from transformers' source text, and agrees with its class."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES, model_type_to_module_name
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert kind in CONFIG_MAPPING_NAMES
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    module = importlib.import_module(
        f"transformers.models.{model_type_to_module_name(kind)}.modeling_{kind.removesuffix('_text')}"
    )
    assert has_sdpa(kind) == bool(getattr(module, name)._supports_sdpa)


@pytest.mark.parametrize("kind", ["unknown", "../../../../etc/passwd", "", "a/b"])
def test_an_unknown_architecture_has_no_peculiarity(kind: str) -> None:
    """For a type of model that transformers does not know, nothing is said, and no other file is read."""
    assert has_sdpa(kind)
    assert list(peculiarities({"model_type": kind})) == []


def test_the_user_is_told_about_attention_and_experts() -> None:
    """An architecture with experts and without SDPA has one sentence about each; Llama has none."""
    attention, experts = peculiarities({"model_type": "gpt_oss", "num_local_experts": 32})
    assert "eager" in attention
    assert "32 experts" in experts
    assert "not quantised" in experts
    assert list(peculiarities({"model_type": "llama", "num_experts": None})) == []


@pytest.mark.parametrize("count", [0, 1, None, "8", True])
def test_a_model_without_experts(count: object) -> None:
    """A model with fewer than two experts, or with none that can be counted, is no mixture of experts."""
    assert experts_of({"num_experts": count}) == 0
