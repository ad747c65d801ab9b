"""Where each row holds one sequence, attention needs no mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, masking_utils

from harness.engine.causal_masks import one_sequence_per_row

IDS = torch.arange(3, 23).view(2, 10)


def test_no_mask_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention is causal without a mask, and gives the same logits, though positions cannot be read in a capture."""
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=96, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                                              num_attention_heads=2)).eval()  # fmt: skip
    masks: list[torch.Tensor | None] = []
    model.model.layers[0].self_attn.register_forward_pre_hook(
        lambda _, __, given: masks.append(given["attention_mask"]), with_kwargs=True
    )
    monkeypatch.setattr(masking_utils, "is_tracing", lambda *_: True)
    before = masking_utils.find_packed_sequence_indices
    with one_sequence_per_row():
        found = model(IDS, use_cache=False).logits
    expected = model(IDS, use_cache=False).logits
    assert masks[0] is None
    assert masks[1] is not None
    assert torch.allclose(found, expected, atol=1e-6)
    assert masking_utils.find_packed_sequence_indices is before
