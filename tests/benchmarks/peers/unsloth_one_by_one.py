"""Trains with unsloth, one trial after another, what `passes` trains in one pass. Prints figures, asserts nothing.

    python tests/benchmarks/peers/unsloth_one_by_one.py CHECKOUT [FOLDER [SHAPE]]

CHECKOUT is a checkout of this repository, FOLDER has room for 14 GB, and SHAPE is a folder of `harness/models/shapes`
(default: llama-2-7b). The GPU is limited to a T4's memory: fp16, rank 16 on all linear layers, adamw_torch, unsloth's
gradient checkpointing.

This needs an NVIDIA GPU, gcc, and an environment apart from the harness's with bitsandbytes, unsloth 2026.10.9,
unsloth_zoo, trl 1.15.0, datasets 4.8.5, torchao, cut_cross_entropy, diffusers, hf_transfer, tyro, typeguard,
docstring-parser, shtab, msgspec, structlog, json5 and nest-asyncio.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CAP = 14.2 * 2**30
"""A T4's memory in bytes."""
TRIALS, ROWS, TIMED = 8, 64, 12
"""`TIMED` is the largest number of steps that are timed for each batch size."""


def make_model(checkout: Path, folder: Path, shape: str) -> None:
    """Write random fp16 weights in a shape, and the pocket model's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    models = checkout / "harness" / "models"
    with torch.device("cuda"):
        config = AutoConfig.from_pretrained(models / "shapes" / shape)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    for file in (models / "pocket").glob("*token*"):
        shutil.copy(file, folder / file.name)


def random_rows(tokens: int) -> list[dict[str, list[int]]]:
    """Return rows of 75 to 125 tokens, the second half of which is trained."""
    rng = random.Random(0)
    made = []
    for _ in range(ROWS):
        ids = [rng.randint(10, tokens - 1) for _ in range(rng.randint(75, 125))]
        made.append({"input_ids": ids, "labels": [-100] * (len(ids) // 2) + ids[len(ids) // 2 :]})
    return made


def padded(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    filled = {
        name: torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in rows])
        for name, fill in (("input_ids", 0), ("labels", -100))
    }
    mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
    return filled | {"attention_mask": torch.tensor(mask)}


def measured(model: Any, rows: list[dict[str, list[int]]], batch: int, folder: Path) -> dict[str, float]:
    """Train for a few steps with a batch size, and return the figures of eight epochs."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: object, **__: object) -> None:
            torch.cuda.synchronize()
            ends.append(time.perf_counter())

    steps = -(-ROWS // batch)
    timed = min(steps, TIMED)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=batch, max_steps=timed, learning_rate=1e-4, fp16=True,
        optim="adamw_torch", report_to=[], save_strategy="no", logging_strategy="no", warmup_steps=0,
        lr_scheduler_type="constant", remove_unused_columns=False,
    )  # fmt: skip
    begun = time.perf_counter()
    Trainer(model=model, args=arguments, train_dataset=rows * 3, data_collator=padded, callbacks=[Clock()]).train()
    total = time.perf_counter() - begun
    gaps = [b - a for a, b in itertools.pairwise(ends)]
    step = statistics.median(gaps[len(gaps) // 3 :])
    return {
        "step, s": step,
        "eight trials, steps alone, s": TRIALS * step * steps,
        "beside the steps, s": total - step * timed,
        "peak reserved, GiB": torch.cuda.max_memory_reserved() / 2**30,
    }


def main() -> None:
    checkout = Path(sys.argv[1])
    work = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    shape = sys.argv[3] if len(sys.argv) > 3 else "llama-2-7b"
    os.environ |= {"UNSLOTH_DISABLE_STATISTICS": "1", "HF_HUB_OFFLINE": "1"}
    import torch

    if not (work / "model" / "config.json").exists():
        make_model(checkout, work / "model", shape)
    torch.cuda.set_per_process_memory_fraction(CAP / torch.cuda.get_device_properties(0).total_memory)
    import unsloth

    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        str(work / "model"), max_seq_length=512, dtype=torch.float16, load_in_4bit=True
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model, r=16, lora_alpha=32, lora_dropout=0, bias="none", use_gradient_checkpointing="unsloth", random_state=0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )  # fmt: skip
    rows = random_rows(min(model.config.vocab_size, len(tokenizer)))
    found: dict[str, Any] = {"unsloth": unsloth.__version__, "shape": shape, "device": torch.cuda.get_device_name()}
    for batch in (1, 4, 16):
        found[f"batch {batch}"] = measured(model, rows, batch, work / "out")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
