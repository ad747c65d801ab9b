"""Trains in double precision, so that the fused engine and SFTTrainer can be compared almost without rounding."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.core.settings import Quantization, Settings
from harness.core.training_outcome import Step
from harness.engine.loading import Base, untouched
from harness.engine.tokenization import IGNORED, Row
from harness.engine.trainers.sft import TrainingLog, build_trainer
from tests.support.short_trainings import one_core, weights


@dataclass(frozen=True)
class Tiny:
    """A model with a few thousand weights in double precision, and random training rows of different lengths."""

    base: Base
    rows: list[Row]


def tiny_llama(base: Base, *, biases: bool = False) -> Tiny:
    """Make a tiny Llama with grouped heads in double precision; with `biases`, its linear layers have random ones."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, eos_token_id=2, bos_token_id=1,
        tie_word_embeddings=False, attn_implementation="sdpa", attention_bias=biases, mlp_bias=biases,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(0, 0.1)
    return tiny(base, model)


def tiny_gpt2(base: Base) -> Tiny:
    """Make a tiny GPT-2 in double precision; its layers are no `torch.nn.Linear`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=96, n_positions=64, pad_token_id=0, eos_token_id=2, bos_token_id=1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return tiny(base, GPT2LMHeadModel(config))


def tiny(base: Base, made: Any) -> Tiny:
    """Return this model of 96 tokens in double precision, with the tokenizer of `base` and random training rows."""
    from transformers import GenerationConfig

    model = made.double().eval().requires_grad_(False)
    model.generation_config = GenerationConfig(eos_token_id=[2], pad_token_id=0, bos_token_id=1)
    rows = []
    for _ in range(11):
        length = int(torch.randint(5, 19, ()))
        ids = torch.randint(3, 96, (length,)).tolist()
        rows.append(Row(ids, [IGNORED] * 3 + ids[3:]))
    return Tiny(Base(model, base.tokenizer, replace(one_core(), compute_dtype="float64"), Quantization.NONE), rows)


def exact(model: Any, ids: Any, labels: Any) -> Any:
    """Return the log-probabilities of labels[:, 1:] in double precision. TRL's own computation rounds to fp32.

    `ids` and `labels` have the shape (rows, tokens), and the result has the shape (rows, tokens - 1).
    """
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    wanted = labels[:, 1:]
    found = logits.log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None]).squeeze(-1)
    return found.masked_fill(wanted == IGNORED, 0.0)


def exactly_alone(tiny: Tiny, settings: Settings, seed: int, folder: Path) -> tuple[dict[str, Any], list[Step]]:
    """Train one trial with SFTTrainer and a loss in double precision; return its adapter and its logged steps."""
    exactly: Counter[int] = Counter()
    with untouched(tiny.base.model):
        log = TrainingLog(allow_skipped=False, progress=lambda step, total: None)
        trainer = build_trainer(tiny.base, tiny.rows, settings, seed, str(folder), log)
        trainer.model.double()

        def loss(model: Any, inputs: dict[str, Any], *_: Any, num_items_in_batch: Any = None, **__: Any) -> Any:
            mask, ids, labels = inputs["attention_mask"], inputs["input_ids"], inputs["labels"]
            log.count(mask.sum(), (labels != IGNORED).sum())
            padded = ids.masked_fill(mask == 0, 0)
            found = -exact(model, padded, labels).sum() / num_items_in_batch
            exactly[len(log.steps) + 1] += found.item()
            return found

        trainer.compute_loss = loss
        trainer.train()
        return weights(trainer.model), [replace(step, loss=exactly[step.step]) for step in log.steps]
