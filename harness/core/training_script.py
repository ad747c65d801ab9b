"""Settings as the arguments of TRL, PEFT and transformers that they are, ready to paste into a training script."""

from __future__ import annotations

from typing import Any

from harness.core.machine import Machine
from harness.core.settings import Quantization, Settings
from harness.core.trainer_arguments import NF4, lora_arguments, machine_arguments, sft_arguments
from harness.core.units import DeviceKind

PRECISE = """\
# Between SFTTrainer(...) and trainer.train(): TRL casts a QLoRA adapter to bf16, in which small updates are lost and
# which fp16's gradient scaler refuses (huggingface/trl#4901).
for parameter in trainer.model.parameters():
    if parameter.requires_grad:
        parameter.data = parameter.data.float()
"""


def script(settings: Settings, machine: Machine, seed: int) -> str:
    """All of it, with its imports."""
    names = ["from peft import LoraConfig", "from trl import SFTConfig"]
    parts = [f"lora_config = {lora_config(settings)}", f"sft_config = {sft_config(settings, machine, seed)}"]
    if settings.quantization is Quantization.NF4:
        names = ["import torch", "from peft import LoraConfig", "from transformers import BitsAndBytesConfig", names[1]]
        parts.insert(0, f"quantization_config = {quantization_config(machine)}")
    return "\n".join([*names, "", *parts, "", PRECISE])


def sft_config(settings: Settings, machine: Machine, seed: int) -> str:
    """TRL's SFTConfig, as the reference engine builds it, less what only a benchmark wants."""
    arguments = {"output_dir": "adapter", **sft_arguments(settings, seed), **machine_arguments(machine)}
    if machine.kind is not DeviceKind.CUDA:
        del arguments["gradient_checkpointing_kwargs"]
    text = call("SFTConfig", arguments)
    warmup = f"    warmup_steps={settings.warmup!r},"
    return text.replace(warmup, f"{warmup}  # below 1: a share of all steps") if settings.warmup < 1 else text


def lora_config(settings: Settings) -> str:
    """PEFT's LoraConfig."""
    return call("LoraConfig", lora_arguments(settings))


def quantization_config(machine: Machine) -> str:
    """transformers' BitsAndBytesConfig of an NF4 base."""
    dtype = f"    bnb_4bit_compute_dtype=torch.{machine.compute_dtype},\n"  # no literal: it is an object of torch
    return f"{call('BitsAndBytesConfig', NF4).removesuffix(')')}{dtype})"


def call(name: str, arguments: dict[str, Any]) -> str:
    """A call with one argument a line; the values may hold any text, the names are Python's."""
    lines = "".join(f"    {key}={literal(value)},\n" for key, value in arguments.items())
    return f"{name}(\n{lines})"


def literal(value: Any) -> str:
    """As Python reads it, in double quotes as people write it; whatever text is in it stays within its quotes.

    What cannot be seen, such as marks that turn a line's direction, is escaped.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    text = repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and text[0] == "'" and '"' not in text else text
