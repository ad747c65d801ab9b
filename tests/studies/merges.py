"""Compares merged models with NF4 + adapter, the model that a run evaluates, and writes a table.

    python -m tests.studies.merges --output reports/studies/merging.json

Ways to merge: exactly, as `harness export` does, and the two usual ways. Models: the pocket model and random Llama,
Mistral and Qwen2 models of 64 hidden units. Adapters: random, of rank 8 on all linear layers, with updates of 1, 3 and
10% of each weight's norm. Figures: the largest difference of a logit as a share of the largest logit, and the distance
to NF4 + adapter as a share of the adapter's effect on the logits.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.model import ModelRef
from harness.core.settings import Quantization
from harness.engine.adapters import attached, save_adapter
from harness.engine.loading import Base, load_base
from harness.engine.merging import merge
from harness.export import shards
from harness.export.config_files import config_of, generation_config_of, plain_files
from harness.models.resolving import POCKET, resolve
from tests.support.short_trainings import one_core

FAMILIES = ("pocket", "llama", "mistral", "qwen2")
SHARES = (0.01, 0.03, 0.10)
TEXTS = ("What is the capital of France?", "Count from 1 to 9.")
SIZES = {
    "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 2048, "max_position_embeddings": 256, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip


def model_of(family: str, folder: Path, *, shards: str = "60KB", **changes: Any) -> ModelRef:
    """Make a random model in several files with the pocket model's tokenizer. For `pocket`, return the pocket model."""
    if family == "pocket":
        return resolve("pocket")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(FAMILIES.index(family))
    config = AutoConfig.for_model(family, **SIZES | changes)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(3.0 if "norm" not in name else 1.0)  # otherwise a random model's logits are nearly equal
    model.to(torch.float16).save_pretrained(folder, max_shard_size=shards)
    for path in plain_files(POCKET):
        shutil.copyfile(path, folder / path.name)
    return resolve(str(folder))


def adapter_of(base: Base, folder: Path, share: float, **options: Any) -> Path:
    """Save a random adapter whose update of each matrix has the norm of the matrix times `share`."""
    import torch
    from peft import LoraConfig, get_peft_model

    from harness.engine.loading import untouched

    torch.manual_seed(2)
    given: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"} | options
    with untouched(base.model), torch.no_grad():
        model = get_peft_model(base.model, LoraConfig(task_type="CAUSAL_LM", **given))
        for module in [m for m in model.modules() if hasattr(m, "lora_A") and m.lora_A]:
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            b.normal_()
            norm = (module.scaling["default"] * b @ a).norm()
            b.mul_(share * _plain(module.get_base_layer().weight).norm() / norm)
        save_adapter(model, folder)
    return folder


def _plain(weight: Any) -> Any:
    from bitsandbytes.functional import dequantize_4bit

    state = getattr(weight, "quant_state", None)
    return dequantize_4bit(weight.data, state) if state is not None else weight


def merged(
    ref: ModelRef, adapter: Path, folder: Path, dtype: str, *, exact: bool = True, limit: int = 1 << 20
) -> ModelRef:
    """Merge into several files in a folder, and return the merged model."""
    compute = "float32" if exact else ""
    tensors = merge(ref, adapter, dtype=dtype, compute_dtype=compute, nf4=exact)
    folder.mkdir()
    list(shards.write(folder, tensors, shards.split(tensors.specs, limit), "inputs"))
    for path in plain_files(Path(ref.path)):
        shutil.copyfile(path, folder / path.name)
    base = Path(ref.path)
    (folder / "config.json").write_text(json.dumps(config_of(base, dtype, untied=tensors.untied)), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(generation_config_of(base)), encoding="utf-8")
    return resolve(str(folder))


@dataclass(frozen=True)
class Behaviour:
    """A model's logits and answers for the same few prompts."""

    logits: Any
    answers: list[list[int]]

    def apart(self, other: Behaviour) -> float:
        """Return the largest difference of a logit from `other`, as a share of the largest logit."""
        return float((self.logits - other.logits).abs().max() / other.logits.abs().max())

    def missed(self, other: Behaviour, bare: Behaviour) -> float:
        """Return the distance to `other` as a share of the distance from `bare`, the base alone, to `other`."""
        return float((self.logits - other.logits).norm() / (other.logits - bare.logits).norm())


def behaviour(base: Base, model: Any = None) -> Behaviour:
    import torch

    from harness.core.suite import Message
    from harness.engine.tokenization import render

    logits, answers = [], []
    with torch.inference_mode():
        for text in TEXTS:
            ids = torch.tensor([render([Message("user", text)], base.tokenizer, ask=True)])
            logits.append((model or base.model)(ids).logits[0].float())
            made = (model or base.model).generate(ids, attention_mask=ids > -1, do_sample=False, max_new_tokens=8)
            answers.append(made[0].tolist())
    return Behaviour(torch.cat(logits), answers)


def loaded(ref: ModelRef, quantization: Quantization) -> Base:
    return load_base(ref, quantization, one_core())


def truth(base: Base, adapter: Path) -> Behaviour:
    """Return the behaviour of NF4 + adapter, the model that a run evaluates."""
    with attached(base, adapter) as model:
        return behaviour(base, model)


def peft_merge(ref: ModelRef, adapter: Path) -> Behaviour:
    """Return the behaviour of the model that PEFT merges into the 4-bit base."""
    from peft import PeftModel

    base = loaded(ref, Quantization.NF4)
    return behaviour(base, PeftModel.from_pretrained(base.model, str(adapter)).merge_and_unload())


def compared(family: str, share: float, folder: Path) -> list[dict[str, Any]]:
    """Return one table row for each way to merge."""
    ref = model_of(family, folder / "base")
    nf4 = loaded(ref, Quantization.NF4)
    adapter = adapter_of(nf4, folder / "adapter", share)
    expected, bare = truth(nf4, adapter), behaviour(nf4)
    ways = {
        "nf4-exact, float32": lambda: _of(merged(ref, adapter, folder / "exact32", "float32")),
        "nf4-exact, float16": lambda: _of(merged(ref, adapter, folder / "exact16", "float16")),
        "fp16-base": lambda: _of(merged(ref, adapter, folder / "base16", "float16", exact=False)),
        "peft into 4-bit": lambda: peft_merge(ref, adapter),
    }
    rows = []
    for way, make in ways.items():
        found = make()
        rows.append(
            {
                "model": family,
                "update": share,
                "merge": way,
                "largest_logit_difference": found.apart(expected),
                "error_of_the_adapters_effect": found.missed(expected, bare),
                "same_answers": sum(a == b for a, b in zip(found.answers, expected.answers, strict=True)),
                "answers": len(TEXTS),
            }
        )
    return rows


def _of(ref: ModelRef) -> Behaviour:
    return behaviour(loaded(ref, Quantization.NONE))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for family in FAMILIES:
        for share in SHARES:
            with tempfile.TemporaryDirectory() as folder:
                rows += compared(family, share, Path(folder))
            for row in rows[-4:]:
                figures = f"{row['largest_logit_difference']:.1e} {row['error_of_the_adapters_effect']:8.2%}"
                print(f"{family:8} {share:4.0%} {row['merge']:20} {figures} {row['same_answers']}/{len(TEXTS)}")
    if given.output:
        command = f"python -m tests.studies.merges --output {given.output}"
        given.output.write_text(json.dumps({"command": command, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
