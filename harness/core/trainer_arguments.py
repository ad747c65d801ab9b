"""Training settings as the arguments of TRL, PEFT and transformers.

The trainer, the training script of a recommendation and the notebook all take their arguments from here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from harness.core.machine import Machine
from harness.core.settings import Settings

FP16 = "float16"
BF16 = "bfloat16"
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
"""The arguments of transformers' BitsAndBytesConfig for NF4 with double quantisation, besides the compute dtype."""


def sft_arguments(settings: Settings, seed: int) -> dict[str, Any]:
    """Return the arguments of TRL's SFTConfig that are the same on every machine."""
    given = {axis.sft: plain(value) for axis, value in settings.given() if axis.sft}
    return {"seed": seed, "data_seed": seed, **given}


def machine_arguments(machine: Machine) -> dict[str, Any]:
    """Return the arguments of TRL's SFTConfig that depend on the machine."""
    cuda = machine.kind == "cuda"
    return {
        # Always set explicitly: TRL's default is bf16, which a T4 only emulates.
        "fp16": cuda and machine.compute_dtype == FP16,
        "bf16": cuda and machine.compute_dtype == BF16,
        # Saves GPU memory for about a third more computation. On a CPU, memory is not scarce.
        "gradient_checkpointing": cuda,
        "logging_nan_inf_filter": False,  # if True, the loss of a diverged step would be logged as 0
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if cuda else None,
    }


def lora_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments of PEFT's LoraConfig."""
    given = {axis.lora: plain(value) for axis, value in settings.resolved().given() if axis.lora}
    return {"task_type": "CAUSAL_LM", **given, "bias": "none"}


def plain(value: Any) -> Any:
    """Return a setting's value as a text, a number, a list or, for options with values, a dictionary."""
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple) and value and all(isinstance(each, tuple) for each in value):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
