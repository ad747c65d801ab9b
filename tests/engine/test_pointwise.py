"""Fused kernels replace the parts of a model that compute the same, and only these."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM, MambaConfig
from transformers.models.llama import modeling_llama

from harness.core.settings import Quantization
from harness.engine.loading import Base
from harness.engine.pointwise import compile_ahead, replaced
from tests.support.exact_trainings import tiny_llama
from tests.support.fused_passes import SIX, distance, named, together
from tests.support.short_trainings import rows_of

SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1,
}  # fmt: skip
IDS = torch.arange(3, 23).view(2, 10)


@dataclass
class InPyTorch:
    """The kernels' functions in PyTorch; they count their calls."""

    calls: int = 0
    error: float = 0.0
    """Added to each result."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        self.calls += 1
        return torch.nn.functional.rms_norm(x, weight.shape, weight, epsilon) + self.error

    def swiglu(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.nn.functional.silu(gate) * up + self.error

    def rotate(self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        first, second = x.chunk(2, -1)
        return x * cosine[:, None] + torch.cat((-second, first), -1) * sine[:, None] + self.error


def llama() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval().requires_grad_(False)


def test_kernels_are_used_until_the_context_ends() -> None:
    """Five norms, two MLPs and the rotation of a Llama use the kernels, with equal logits; afterwards none does."""
    model, kernels = llama(), InPyTorch()
    rotation = modeling_llama.apply_rotary_pos_emb
    expected = model(IDS).logits
    with replaced(model, kernels) as count:
        before = kernels.calls
        torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-5, atol=1e-5)
        assert (count, kernels.calls - before) == (8, 5 + 2 + 2 * 2)
    before = kernels.calls
    assert model(IDS).logits.equal(expected)
    assert kernels.calls == before
    assert modeling_llama.apply_rotary_pos_emb is rotation


def test_nothing_is_compiled_ahead_for_a_model_without_heads() -> None:
    """A model without attention heads, such as Mamba, is loaded without compiling kernels for it."""
    assert compile_ahead(MambaConfig(), torch.float32) is None


def test_kernels_with_other_results_are_not_used() -> None:
    """If a kernel's result differs from the module's, the module stays as it is."""
    model = llama()
    expected = model(IDS).logits
    with replaced(model, InPyTorch(error=1e-3)) as count:
        assert count == 0
        assert model(IDS).logits.equal(expected)


def test_norms_and_activations_of_another_kind_stay() -> None:
    """Of a Gemma, whose norms add 1 to the weight and whose activation is GELU, only the rotation is replaced."""
    model: Any = GemmaForCausalLM(GemmaConfig(**SIZES)).eval().requires_grad_(False)
    expected = model(IDS).logits
    with replaced(model, InPyTorch()) as count:
        assert count == 1
        torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-5, atol=1e-5)


def test_a_training_with_kernels_equals_one_without(base: Base) -> None:
    """With the kernels, a fused training gives the same adapters, with dropout and uneven rows as well.

    Its norms stay: in double precision, transformers' round to fp32, which the kernels in this test do not.
    """
    tiny = tiny_llama(base)
    settings = [replace(s, quantization=Quantization.NONE, dropout=0.1 * n) for n, s in enumerate(SIX[:3])]
    expected = together(tiny.base, *settings, rows=tiny.rows)
    with replaced(tiny.base.model, InPyTorch()) as count:
        assert count == 3
        found = together(tiny.base, *settings, rows=tiny.rows)
    for name, one in found.items():
        assert distance(named(one), named(expected[name])) < 1e-9


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="needs Triton and its interpreter (TRITON_INTERPRET=1)"
)
def test_a_training_with_triton_equals_one_without(base: Base) -> None:
    """In Triton's interpreter, a fused training of the toy model with the kernels gives the same adapters."""
    from harness.engine import kernels

    expected = together(base, *SIX[:2], rows=rows_of(base, 4))
    with replaced(base.model, kernels) as count:
        assert count > len(base.model.model.layers)
        found = together(base, *SIX[:2], rows=rows_of(base, 4))
    for name, one in found.items():
        assert distance(named(one), named(expected[name])) < 1e-3
