"""Answers the same prompts at each stage of an export, and measures how much the logits change between stages.

The stages lead from the NF4 base with its adapter, through the merged model, to the GGUF files.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.core.answers import Answer
from harness.core.errors import EngineError
from harness.core.export import TensorSpec
from harness.core.job import Prompt
from harness.core.machine import Machine
from harness.core.model import ModelRef
from harness.core.parity import Distance, Stage, StageAnswers
from harness.core.quantities import memory
from harness.core.settings import Quantization
from harness.core.suite import Decoding
from harness.core.units import DeviceKind
from harness.engine.adapters import attached
from harness.engine.generation.backends import Backend, GgufBackend, TorchBackend, open_gguf
from harness.engine.loading import Base, attention_for, load_base
from harness.engine.meter import out_of_memory
from harness.engine.tokenization import render

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedTokenizerBase

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
    files: dict[Stage, tuple[Path, Path | None]]
    """The exported GGUF file of each stage that has one, and the file of the adapter that is loaded onto it, if any."""


def answer_stages(
    inputs: StageInputs, prompts: Sequence[Prompt], decoding: Decoding, report: Callable[[str], None]
) -> Iterator[StageAnswers]:
    """Yield the answers of each stage, and the distance of its logits from those of the stage before.

    One model is in memory at a time. Logits are computed for the first `PROBES` prompts, each followed by the first
    stage's answer. Progress goes to `report`, line by line.

    Raises:
        EngineError: there is too little memory for the model of a stage.
    """
    questions = _Questions(prompts, decoding, report)
    with _enough_memory(inputs, Stage.ADAPTER):
        found, of_run = _adapter(inputs, questions)
    yield found
    with _enough_memory(inputs, Stage.MERGED):
        found = _merged(inputs, of_run, questions)
    yield found
    with _enough_memory(inputs, Stage.RELOADED):
        found = _reloaded(inputs, questions)
    yield found
    for stage, (file, lora) in inputs.files.items():
        with open_gguf(file, of_run.tokenizer, of_run.ends, inputs.machine.threads, lora) as backend:
            found = questions.ask(stage, backend)
        yield found


@dataclass(frozen=True)
class _OfRun:
    """What the stages after the first one keep of the evaluated model: its tokenizer and how its answers end."""

    tokenizer: PreTrainedTokenizerBase
    generation: GenerationConfig

    @property
    def ends(self) -> frozenset[int]:
        """Ids of the tokens that end an answer."""
        return frozenset(self.generation.eos_token_id)


class _Questions:
    """The prompts that every stage answers, and the logits of the stage before."""

    def __init__(self, prompts: Sequence[Prompt], decoding: Decoding, report: Callable[[str], None]) -> None:
        self._prompts, self._decoding, self._report = prompts, decoding, report
        self._before: list[torch.Tensor] = []
        self._probes: list[list[int]] = []

    def ask(self, stage: Stage, backend: Backend) -> StageAnswers:
        """Return the stage's answers, and compare its logits with those of the stage that was asked before."""
        self._report(f"answering: {stage}")
        answers = backend.answers(self._prompts, self._decoding)
        self._probes = self._probes or _probes(backend, self._prompts, answers)
        before, self._before = self._before, [backend.logits(ids) for ids in self._probes]
        alike = sum(map(backend.same_tokens, self._prompts)) if isinstance(backend, GgufBackend) else None
        return StageAnswers(stage, tuple(answers), _distance(before, self._before) if before else None, alike)


def _adapter(inputs: StageInputs, questions: _Questions) -> tuple[StageAnswers, _OfRun]:
    base = load_base(inputs.model, inputs.quantization, inputs.machine, saved=inputs.saved)
    with attached(base, inputs.adapter) as model:
        found = questions.ask(Stage.ADAPTER, TorchBackend(base, model))
    return found, _OfRun(base.tokenizer, base.model.generation_config)


def _merged(inputs: StageInputs, of_run: _OfRun, questions: _Questions) -> StageAnswers:
    model = _in_memory(inputs, of_run)
    return questions.ask(
        Stage.MERGED, TorchBackend(Base(model, of_run.tokenizer, inputs.machine, Quantization.NONE), model)
    )


def _reloaded(inputs: StageInputs, questions: _Questions) -> StageAnswers:
    plain = load_base(inputs.reloaded, Quantization.NONE, inputs.machine)
    return questions.ask(Stage.RELOADED, TorchBackend(plain, plain.model))


@contextlib.contextmanager
def _enough_memory(inputs: StageInputs, stage: Stage) -> Iterator[None]:
    """Free the model of the stage before, and turn a lack of memory in this stage into an error with a remedy."""
    gc.collect()  # a model refers to itself
    if inputs.machine.kind is DeviceKind.CUDA:
        import torch

        torch.cuda.empty_cache()
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise _shortage(inputs, stage) from error


def _shortage(inputs: StageInputs, stage: Stage) -> EngineError:
    """Return the error for a stage that ran out of memory."""
    import torch

    message = f"{inputs.machine.device} has too little memory for the stage {stage!s}"
    close = "Close other programs that use its memory"
    if stage is Stage.ADAPTER:
        return EngineError(message, remedy=f"{close}, then run the same command again.")
    dtype = inputs.machine.compute_dtype
    size = sum(math.prod(spec.shape) for spec in inputs.merge.specs) * getattr(torch, dtype).itemsize
    message += f": its weights take {memory(size)} in {dtype}, and answering takes more"
    ways = f"{close}, or use a machine with more"
    if inputs.machine.kind is DeviceKind.CUDA:
        ways += "; or set CUDA_VISIBLE_DEVICES=-1, so that the CPU and its memory are used"
    return EngineError(message, remedy=f"{ways}. Then run the same command again.")


def _in_memory(inputs: StageInputs, of_run: _OfRun) -> Any:
    """Return a model built from the merged tensors in memory. The exported folder gives only its configuration."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype: torch.dtype = getattr(torch, inputs.machine.compute_dtype)
    device = torch.device(inputs.machine.kind)
    config = AutoConfig.from_pretrained(inputs.reloaded.path, local_files_only=True)
    # Only weights are empty: buffers, such as the frequencies of position embeddings, are in no file.
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention_for(config), dtype=dtype)
    made = {spec.name: _tensor(inputs.merge, spec).to(device, dtype) for spec in inputs.merge.specs}
    model.load_state_dict(made, strict=False, assign=True)
    model.tie_weights()
    for name, buffer in model.named_buffers():
        owner, _, last = name.rpartition(".")
        model.get_submodule(owner).register_buffer(last, buffer.to(device), persistent=False)
    model.generation_config = of_run.generation
    return model.eval()


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
