"""Tiny models of other architectures, saved with transformers as users would save them, can be trained and asked."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.core.engines import Engine
from harness.core.job import Job, Task
from harness.core.settings import Quantization
from harness.core.suite import Decoding
from harness.core.training_outcome import Status
from harness.engine.generation.continuous_batching import attends_to_all
from harness.engine.loading import load_base
from harness.engine.worker import work
from harness.hardware.estimate import shape_of
from harness.models.resolving import POCKET, resolve
from harness.storage.cache import Cache
from tests.support.short_trainings import SHORT, ask, one_core, prompts, rows_of, trained_once

pytestmark = pytest.mark.slow
TINY = {
    "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 2048, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """An architecture: its configuration, and the special tokens that its tokenizer lacks."""

    config: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    pad: str | None = "<unk>"
    """The token that replaces a missing padding token."""


KINDS = {
    "Llama": Kind("LlamaConfig", "LlamaForCausalLM", {"num_key_value_heads": 4}, ("pad_token",)),
    "Mistral": Kind(
        "MistralConfig", "MistralForCausalLM", {"sliding_window": None}, ("pad_token", "unk_token"), "</s>"
    ),
    "Qwen2": Kind("Qwen2Config", "Qwen2ForCausalLM", {"tie_word_embeddings": True}, (), None),
    "SmolLM": Kind("LlamaConfig", "LlamaForCausalLM", {"tie_word_embeddings": True}, ("pad_token",)),
}


def made(kind: Kind, folder: Path) -> Path:
    """Save a model of this kind with random weights and a copy of the pocket model's tokenizer.

    The copy lacks the special tokens that tokenizers of this kind lack.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, kind.config)(**TINY | kind.options)
    getattr(transformers, kind.model)(config).save_pretrained(str(folder))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        shutil.copy(POCKET / name, folder / name)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        given = json.loads((folder / name).read_text(encoding="utf-8"))
        left = {key: value for key, value in given.items() if key not in kind.without}
        (folder / name).write_text(json.dumps(left), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_a_model_of_another_architecture_is_trained(name: str, tmp_path: Path) -> None:
    """A tiny model of another architecture loads in NF4, trains and answers.

    The predicted number of parameters equals that of the loaded model.
    """
    kind = KINDS[name]
    ref = resolve(str(made(kind, tmp_path / name)))
    config = json.loads((Path(ref.path) / "config.json").read_text(encoding="utf-8"))
    base = load_base(ref, Quantization.NF4, one_core())
    ours = shape_of(config)
    assert ours.embedded + ours.others == sum(p.numel() for p in base.model.parameters() if p.dtype.is_floating_point)
    assert kind.pad is None or base.tokenizer.pad_token == kind.pad
    found = trained_once(base, SHORT, rows=rows_of(base, 4))
    assert found.status is Status.SUCCEEDED
    assert found.trainable_parameters == ours.trainable(SHORT.rank, SHORT.target_modules)
    assert len(ask(base, texts=("What is 3 plus 4?",))) == 1


def test_a_sliding_window_answers_as_alone(tmp_path: Path) -> None:
    """If a sliding window is shorter than the prompts, a worker's answers equal those of each model alone."""
    kind = Kind("MistralConfig", "MistralForCausalLM", {"sliding_window": 24}, ("pad_token", "unk_token"), "</s>")
    ref = resolve(str(made(kind, tmp_path / "window")))
    base, decoding = load_base(ref, Quantization.NF4, one_core()), Decoding(12)
    texts = ("river stone lamp quiet market " * 20, *(f"Say {n}." for n in range(24)))
    asked = prompts(*texts)
    assert not attends_to_all(base, asked, decoding)
    assert attends_to_all(base, asked[1:2], Decoding(1))
    tasks = tuple(Task(name, f"training-{name}", None, 0, train=False, prompts=asked) for name in ("one", "two"))
    job = Job(
        model=ref, machine=one_core(), quantization=Quantization.NF4, engine=Engine.FUSED,
        cache=str(tmp_path / "cache"), examples=(), decoding=decoding, tasks=tasks,
    )  # fmt: skip
    assert work(job, lambda event: None)
    alone = [(answer.text, answer.tokens) for answer in ask(base, None, texts, decoding)]
    for task in tasks:
        (given,) = Cache(tmp_path / "cache").answers(task.training)
        assert [(answer.text, answer.tokens) for answer in given.answers] == alone
