"""From NF4 + adapter to llama.cpp's file, stage by stage: the same prompts, and how far logits move at each step."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.engine.adapters import attached
from harness.engine.base import Base, load_base
from harness.engine.players import Gguf, Player, Torch, opened
from harness.engine.rows import render
from harness.records import (
    Answer,
    Decoding,
    Distance,
    Machine,
    ModelRef,
    Prompt,
    Quantization,
    Stage,
    StageAnswers,
    TensorSpec,
)

if TYPE_CHECKING:
    import torch

PROBES = 24
"""Prompts whose logits are compared, each with the first stage's answer: all logits of all would not fit in memory."""


class Tensors(Protocol):
    """The merged model's, made when they are asked for: `harness.engine.merging.Merge`."""

    @property
    def specs(self) -> Sequence[TensorSpec]: ...

    def chunks(self, spec: TensorSpec) -> Iterable[memoryview]: ...


@dataclass(frozen=True)
class Ladder:
    """What is climbed: a base as it was evaluated, an adapter, and what was exported of them."""

    model: ModelRef
    quantization: Quantization
    machine: Machine
    saved: Path | None
    adapter: Path
    merge: Tensors
    reloaded: ModelRef
    files: dict[Stage, Path]
    """The GGUF files that there are."""


def climb(
    ladder: Ladder, prompts: Sequence[Prompt], decoding: Decoding, tell: Callable[[str], None]
) -> Iterator[StageAnswers]:
    """The answers of each stage, each compared with the one before over the first stage's own answers."""
    before: list[torch.Tensor] = []
    probes: list[list[int]] = []
    for stage, player in _players(ladder):
        tell(f"asking: {stage}")
        answers = player.answers(prompts, decoding)
        probes = probes or _probes(player, prompts, answers)
        logits = [player.logits(ids) for ids in probes]
        alike = sum(map(player.alike, prompts)) if isinstance(player, Gguf) else None
        yield StageAnswers(stage, tuple(answers), _distance(before, logits) if before else None, alike)
        before = logits


def _players(ladder: Ladder) -> Iterator[tuple[Stage, Player]]:
    base = load_base(ladder.model, ladder.quantization, ladder.machine, saved=ladder.saved)
    with attached(base, ladder.adapter) as model:
        yield Stage.ADAPTER, Torch(base, model)
    del base, model
    gc.collect()
    plain = load_base(ladder.reloaded, Quantization.NONE, ladder.machine)
    with _in_memory(plain, ladder.merge) as model:
        yield Stage.MERGED, Torch(plain, model)
    yield Stage.RELOADED, Torch(plain, plain.model)
    ends = frozenset(plain.model.generation_config.eos_token_id)
    for stage, file in ladder.files.items():
        with opened(file, plain.tokenizer, ends, ladder.machine.threads) as player:
            yield stage, player


@contextlib.contextmanager
def _in_memory(plain: Base, merge: Tensors) -> Iterator[Any]:
    """A second model with the merged tensors as they are made, before any file."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(plain.model.config, attn_implementation="sdpa")
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


def _probes(player: Player, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[list[int]]:
    """Each prompt with the answer behind it, as tokens."""
    tokenizer = player.base.tokenizer if isinstance(player, Torch) else None
    if tokenizer is None:
        raise TypeError("the first stage is PyTorch's")
    found = []
    for prompt, given in list(zip(prompts, answers, strict=True))[:PROBES]:
        behind = tokenizer(given.text, add_special_tokens=False)["input_ids"]
        found.append([*render(prompt.messages, tokenizer, ask=True), *behind])
    return found


def _distance(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> Distance:
    import torch

    old, new = torch.cat(list(before)), torch.cat([row[:, : before[0].shape[1]] for row in after])
    scale = float(old.abs().max())
    apart = (new - old).abs()
    same = (new.argmax(-1) == old.argmax(-1)).float()
    return Distance(float(apart.max()) / scale, float(apart.mean()) / scale, float(same.mean()), len(old))
