"""Answers the same prompts at each stage of an export, and measures how much the logits change between stages.

The stages lead from the NF4 base with its adapter, through the merged model, to the GGUF files.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.core.answers import Answer
from harness.core.export import TensorSpec
from harness.core.job import Prompt
from harness.core.machine import Machine
from harness.core.model import ModelRef
from harness.core.parity import Distance, Stage, StageAnswers
from harness.core.settings import Quantization
from harness.core.suite import Decoding
from harness.engine.adapters import attached
from harness.engine.generation.backends import Backend, GgufBackend, TorchBackend, open_gguf
from harness.engine.loading import Base, attention_of, load_base
from harness.engine.tokenization import render

if TYPE_CHECKING:
    import torch

PROBES = 24
"""Number of prompts whose logits are compared; the logits of more would not fit in memory."""


class Tensors(Protocol):
    """The tensors of a merged model, computed on request; `harness.engine.merging.Merge` is such a class."""

    @property
    def specs(self) -> Sequence[TensorSpec]: ...

    def chunks(self, spec: TensorSpec) -> Iterable[memoryview]: ...


@dataclass(frozen=True)
class StageInputs:
    """The evaluated base, an adapter, and the exported model files."""

    model: ModelRef
    quantization: Quantization
    machine: Machine
    saved: Path | None
    adapter: Path
    merge: Tensors
    reloaded: ModelRef
    files: dict[Stage, Path]
    """The exported GGUF file of each stage that has one."""


def answer_stages(
    inputs: StageInputs, prompts: Sequence[Prompt], decoding: Decoding, report: Callable[[str], None]
) -> Iterator[StageAnswers]:
    """Yield the answers of each stage, and the distance of its logits from those of the stage before.

    Logits are computed for the first `PROBES` prompts, each followed by the first stage's answer. Progress goes to
    `report`, line by line.
    """
    before: list[torch.Tensor] = []
    probes: list[list[int]] = []
    for stage, backend in _backends(inputs):
        report(f"answering: {stage}")
        answers = backend.answers(prompts, decoding)
        probes = probes or _probes(backend, prompts, answers)
        logits = [backend.logits(ids) for ids in probes]
        alike = sum(map(backend.same_tokens, prompts)) if isinstance(backend, GgufBackend) else None
        yield StageAnswers(stage, tuple(answers), _distance(before, logits) if before else None, alike)
        before = logits


def _backends(inputs: StageInputs) -> Iterator[tuple[Stage, Backend]]:
    """Yield every stage with its backend, which can be used until the next stage is requested."""
    base = load_base(inputs.model, inputs.quantization, inputs.machine, saved=inputs.saved)
    with attached(base, inputs.adapter) as model:
        yield Stage.ADAPTER, TorchBackend(base, model)
    del base, model
    gc.collect()
    plain = load_base(inputs.reloaded, Quantization.NONE, inputs.machine)
    with _in_memory(plain, inputs.merge) as model:
        yield Stage.MERGED, TorchBackend(plain, model)
    yield Stage.RELOADED, TorchBackend(plain, plain.model)
    ends = frozenset(plain.model.generation_config.eos_token_id)
    for stage, file in inputs.files.items():
        with open_gguf(file, plain.tokenizer, ends, inputs.machine.threads) as backend:
            yield stage, backend


@contextlib.contextmanager
def _in_memory(plain: Base, merge: Tensors) -> Iterator[Any]:
    """Yield a model built from the merged tensors in memory. `plain` is the same model, loaded from its files."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        attention = attention_of(plain.model) or "sdpa"
        model = AutoModelForCausalLM.from_config(plain.model.config, attn_implementation=attention)
    made = {spec.name: _tensor(merge, spec).to(plain.device, plain.model.dtype) for spec in merge.specs}
    model.load_state_dict(made, strict=False, assign=True)
    model.tie_weights()
    for name, buffer in plain.model.named_buffers():
        owner, _, last = name.rpartition(".")
        model.get_submodule(owner).register_buffer(last, buffer, persistent=False)
    model.generation_config = plain.model.generation_config
    yield model.eval()


def _tensor(merge: Tensors, spec: TensorSpec) -> torch.Tensor:
    import torch

    content = bytearray(b"".join(merge.chunks(spec)))
    return torch.frombuffer(content, dtype=getattr(torch, spec.dtype)).reshape(spec.shape)


def _probes(backend: Backend, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[list[int]]:
    """Return the token ids of each of the first `PROBES` prompts, followed by its answer."""
    tokenizer = backend.base.tokenizer if isinstance(backend, TorchBackend) else None
    if tokenizer is None:
        raise TypeError("the first stage must be a PyTorch model")
    found = []
    for prompt, given in list(zip(prompts, answers, strict=True))[:PROBES]:
        behind = tokenizer(given.text, add_special_tokens=False)["input_ids"]
        found.append([*render(prompt.messages, tokenizer, ask=True), *behind])
    return found


def _distance(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> Distance:
    """Compare logits of the same texts, each (tokens, vocabulary); the vocabulary of `after` may be padded."""
    import torch

    old, new = torch.cat(list(before)), torch.cat([row[:, : before[0].shape[1]] for row in after])
    scale = float(old.abs().max())
    apart = (new - old).abs()
    same = (new.argmax(-1) == old.argmax(-1)).float()
    return Distance(float(apart.max()) / scale, float(apart.mean()) / scale, float(same.mean()), len(old))
