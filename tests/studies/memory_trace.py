"""Counts every tensor of real trainings on a CPU, and compares the counts with harness.hardware.estimate.

    python -m tests.studies.memory_trace --output reports/studies/memory-on-cpu.json

SFTTrainer trains adapters on NF4 models of a few shapes with random weights, as it does on a GPU: 16-bit autocast
(bf16, since a CPU has no fp16), gradient checkpointing, fp32 adapters. The study counts the bytes of every storage from
the operation that makes it until it is freed. A GPU's allocator counts the same bytes, and also buffers inside GPU
kernels. Where a T4 computes attention by the plain formula (keys shared by heads, no mask), the study does so on the
CPU. Nothing is fitted, and nothing runs on a GPU: the study shows whether the estimate counts the right tensors.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.core.machine import Machine
from harness.core.model import ModelRef
from harness.core.settings import Quantization, Settings
from harness.core.units import DeviceKind
from harness.engine.loading import Base, load_base, untouched
from harness.engine.random_weights import make_base
from harness.engine.tokenization import Row
from harness.engine.trainers.sft import TrainingLog, _dataset, lora_config, sft_arguments, use_full_precision
from harness.hardware.estimate import Coefficients, batches, memory, shape_of
from harness.models.resolving import POCKET

COUNTED = Coefficients(12.0, 0.0, (0.0, 0.0), 0.0, "counted by hand")
"""Coefficients for a CPU: the softmax's backward holds three fp32 tensors of scores; there are no workspaces."""
ON = Machine(DeviceKind.CPU, "CPU", "bfloat16", threads=1)
LAYERS = 3
NON_REENTRANT = {"use_reentrant": False}
WORDS = 64
"""Number of tokens whose logits the head computes at once. It is small, since without Triton the head holds copies."""
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 512, "intermediate_size": 1376, "num_attention_heads": 8, "num_key_value_heads": 8},
    "wide": {"hidden_size": 256, "intermediate_size": 1536, "num_attention_heads": 4, "num_key_value_heads": 4},
    "grouped": {"hidden_size": 512, "intermediate_size": 1792, "num_attention_heads": 8, "num_key_value_heads": 2},
    "narrow": {"hidden_size": 384, "intermediate_size": 768, "num_attention_heads": 6, "num_key_value_heads": 2},
}
SETTINGS = (
    Settings(rank=4, batch_size=2, max_length=128),
    Settings(rank=4, batch_size=4, max_length=256),
    Settings(rank=32, batch_size=1, max_length=64),
    Settings(rank=16, batch_size=2, max_length=256, gradient_accumulation=2),
    Settings(rank=8, batch_size=4, max_length=128, target_modules=("q_proj", "v_proj")),
    Settings(rank=8, batch_size=1, max_length=512),
    Settings(rank=64, batch_size=1, max_length=32),
)


PLAIN = (SETTINGS[1], SETTINGS[4], SETTINGS[5])
"""Settings that are also used on a 16-bit base."""
RAGGED = (Settings(rank=8, batch_size=4, max_length=256), Settings(rank=8, batch_size=2, max_length=512))
"""Settings that are also used with rows of two lengths, for which attention needs a mask."""


class Live(TorchDispatchMode):
    """Counts the bytes of all storages except the model's own: those alive now, and the peak."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        # Views of weights are no new storages.
        self._known = {tensor.untyped_storage()._cdata: 0 for tensor in _tensors(model)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._known or not storage.nbytes():
            return
        self._known[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


def weights_of(model: torch.nn.Module) -> int:
    """Return the bytes of a loaded model, including the constants with which its weights are quantised."""
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(model)}
    return sum(held.values())


def _tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    for parameter in (*model.parameters(), *model.buffers()):
        yield parameter
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield state.absmax
            if state.nested:
                yield state.state2.absmax


@contextmanager
def based(config: dict[str, Any], quantization: Quantization) -> Iterator[tuple[Base, dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pocket = json.loads((POCKET / "config.json").read_text(encoding="utf-8"))
        whole = pocket | config | {"num_hidden_layers": LAYERS, "tie_word_embeddings": False, "head_dim": 64}
        (folder / "config.json").write_text(json.dumps(whole), encoding="utf-8")
        (folder / "base").mkdir()
        ref = ModelRef("traced", name, "", shape_only=True, tokenizer=str(POCKET))
        make_base(ref, quantization, ON, folder / "base")
        yield load_base(ref, quantization, ON, saved=folder / "base"), whole


def lengths(settings: Settings, ragged: bool) -> list[int]:
    count = settings.batch_size * settings.gradient_accumulation
    return [settings.max_length - (settings.max_length // 4 if ragged and n % 2 else 0) for n in range(count)]


def traced(base: Base, settings: Settings, rows: list[int], whole: bool) -> float:
    """Return the peak, in bytes, of a training of three steps, including the model's weights.

    If `whole` is true, attention holds the scores of all tokens at once, as on a T4.
    """
    from trl import SFTTrainer
    from trl.trainer import utils

    utils._CHUNKED_LOGPROB_CHUNK_SIZE = WORDS
    # PEFT checks only CUDA's autocast; without it, PEFT casts the input of every module.
    torch.set_autocast_enabled("cuda", True)
    # On a GPU this optimizer also updates all parameters at once, but without copying them.
    settings = replace(settings, epochs=3, learning_rate=1e-5, optimizer="adamw_torch_fused")
    kernel = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH) if whole else nullcontext()
    live, start = Live(base.model), weights_of(base.model)
    with untouched(base.model), tempfile.TemporaryDirectory() as folder, kernel, live:
        given = replace(
            sft_arguments(base, settings, 0, folder),
            bf16=True,
            **dict.fromkeys(("activation_checkpointing", "gradient_checkpointing"), True),
            **dict.fromkeys(("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"), NON_REENTRANT),
        )
        log = TrainingLog(allow_skipped=False, progress=lambda step, total: None)
        trainer = SFTTrainer(
            model=base.model, args=given, train_dataset=_dataset([Row([5] * n, [5] * n) for n in rows]),
            processing_class=base.tokenizer, peft_config=lora_config(settings), callbacks=[log.callback()],
        )  # fmt: skip
        use_full_precision(trainer.model)
        log.watch(trainer)
        live.peak = live.now
        trainer.train()
        del trainer
    return start + live.peak


def cases(quantization: Quantization) -> Iterator[tuple[Settings, bool]]:
    """Return the settings to train, each with whether its rows differ in length."""
    if quantization is Quantization.NONE:
        yield from ((replace(each, quantization=quantization), False) for each in PLAIN)
    else:
        yield from ((each, False) for each in SETTINGS)
        yield from ((each, True) for each in RAGGED)


def compared() -> Iterator[dict[str, Any]]:
    """Return each training with its counted and its predicted bytes."""
    for (name, config), quantization in product(SHAPES.items(), (Quantization.NF4, Quantization.NONE)):
        grouped = config["num_key_value_heads"] < config["num_attention_heads"]
        with based(config, quantization) as (base, whole):
            for settings, ragged in cases(quantization):
                rows = lengths(settings, ragged)
                size, made = traced(base, settings, rows, grouped and not ragged), batches(settings, rows)
                held = memory(shape_of(whole), replace(settings, optimizer="adamw_torch_fused"), made, COUNTED)
                error = held.allocated / size - 1
                title = f"{titled(settings)}{' padded' if ragged else ''}"
                print(f"{name:8} {title:16} {size / 2**20:6.1f} MiB {100 * error:+6.2f}% {held.moment}", flush=True)
                yield {
                    "model": name, "name": title, "counted": size, "predicted": round(held.allocated),
                    "moment": held.moment.value, "error": round(error, 4),
                }  # fmt: skip


def titled(settings: Settings) -> str:
    title = f"r{settings.rank} {settings.batch_size}x{settings.max_length}"
    title += f" acc{settings.gradient_accumulation}" if settings.gradient_accumulation > 1 else ""
    return title + (" in 16 bits" if settings.quantization is Quantization.NONE else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    importlib.import_module("harness.hardware.estimate.memory")._TILE = (4096, WORDS)  # type: ignore[attr-defined]
    found = list(compared())
    errors = sorted(abs(each["error"]) for each in found)
    median, worst = errors[len(errors) // 2], errors[-1]
    print(f"median {100 * median:.2f}%, worst {100 * worst:.2f}%")
    text = {
        "format": 2, "command": f"python -m tests.studies.memory_trace --output {given.output.as_posix()}",
        "torch": torch.__version__, "median_error": median, "worst_error": worst, "trainings": found,
    }  # fmt: skip
    given.output.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
