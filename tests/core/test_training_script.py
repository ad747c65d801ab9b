"""Tests that the generated training script passes the engine's arguments to TRL, PEFT and transformers."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core import training_script
from harness.core.conversations import as_chat
from harness.core.settings import Quantization, Scheduler, Settings
from harness.core.suite import Example, Message
from harness.engine.loading import Base, quantization_config
from harness.engine.trainers.sft import lora_config, sft_arguments
from tests.support.made_results import machine

SETTINGS = [
    Settings(),
    Settings(
        learning_rate=3e-5, epochs=2.5, warmup=7, scheduler=Scheduler.COSINE, rank=4, alpha=3, dropout=0.1, rslora=True,
        target_modules=("q_proj", "v_proj"), batch_size=2, gradient_accumulation=5, optimizer="paged_adamw_8bit",
        max_length=77, weight_decay=0.01, max_grad_norm=0.3, packing=True,
    ),
    Settings(
        scheduler=Scheduler.COSINE_WITH_MIN_LR, lr_scheduler_kwargs=(("min_lr_rate", 0.1), ("num_cycles", 1.5)),
        target_modules=r".*\.(q|v)_proj", loraplus_lr_ratio=16.0,
    ),
    Settings(
        use_dora=True, layers_to_transform=tuple(range(32)), loraplus_lr_ratio=16.0,
        target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    ),
]  # fmt: skip


def arguments(text: str) -> dict[str, Any]:
    [call] = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


@pytest.mark.parametrize("settings", SETTINGS)
def test_lora_config_equals_the_engines(settings: Settings) -> None:
    """The LoraConfig in the generated script equals the one that the engine makes from the settings."""
    from peft import LoraConfig

    assert LoraConfig(**arguments(training_script.lora_config(settings))).to_dict() == lora_config(settings).to_dict()


@pytest.mark.parametrize("settings", SETTINGS)
def test_sft_config_equals_the_engines(settings: Settings, base: Base, tmp_path: Path) -> None:
    """Every argument of SFTConfig in the generated script has the value that the engine trains with."""
    trained = sft_arguments(base, settings, 5, str(tmp_path))
    given = arguments(training_script.sft_config(settings, base.machine, 5))
    where = given.pop("output_dir")
    assert where == "adapter"
    assert {name: getattr(trained, name) for name in given} == given
    assert {"learning_rate", "num_train_epochs", "warmup_steps", "max_length", "seed"} <= given.keys()


def test_the_precision_is_always_set() -> None:
    """For a GPU, the generated script sets exactly one of fp16 and bf16, and non-reentrant checkpointing."""
    on = replace(machine("cuda"), compute_dtype="float16")
    given = arguments(training_script.sft_config(Settings(), on, 0))
    assert (given["fp16"], given["bf16"]) == (True, False)
    assert given["gradient_checkpointing_kwargs"] == {"use_reentrant": False}
    given = arguments(training_script.sft_config(Settings(), replace(on, compute_dtype="bfloat16"), 0))
    assert (given["fp16"], given["bf16"]) == (False, True)


@pytest.mark.parametrize("quantization", Quantization)
def test_the_script_runs(quantization: Quantization) -> None:
    """The generated script runs; it contains a quantisation configuration only for NF4."""
    import torch

    text = training_script.script(replace(SETTINGS[0], quantization=quantization), machine(), 0)
    made: dict[str, Any] = {}
    exec(compile(text.split("# Between")[0], "pasted", "exec"), made)
    compile(text, "pasted", "exec")
    assert made["sft_config"].learning_rate == SETTINGS[0].learning_rate
    found = made.get("quantization_config")
    expected = quantization_config(torch.float32).to_dict() if quantization is Quantization.NF4 else None
    assert (found and found.to_dict()) == expected


@pytest.mark.parametrize("settings", SETTINGS)
def test_lines_are_short(settings: Settings) -> None:
    """No line of the script is longer than `LONGEST`, so that two columns of it fit on a printed page."""
    rows = [Example((Message("user", "a"), Message("assistant", "b")))]
    nf4 = replace(settings, quantization=Quantization.NF4)
    text = training_script.script(nf4, replace(machine("cuda"), compute_dtype="float16"), 0, rows)
    assert [line for line in text.splitlines() if len(line) > training_script.LONGEST and '"role"' not in line] == []


def test_the_script_has_the_rehearsal_rows() -> None:
    """The generated script contains the trial's rehearsal rows as chat messages, and none without rehearsal."""
    rows = [Example((Message("user", 'Say "hi"\n'), Message("assistant", "Hi!"))) for _ in range(2)]
    text = training_script.script(Settings(rehearsal=2), machine(), 0, rows)
    [found] = [
        ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "rehearsal_rows"
    ]
    assert found == [{"messages": as_chat(row.messages)} for row in rows]
    assert "rehearsal" not in training_script.script(Settings(), machine(), 0)
