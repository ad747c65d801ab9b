"""Training settings as Python code that calls TRL, PEFT and transformers, for the user's own training script."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from harness.core.conversations import as_chat
from harness.core.machine import Machine
from harness.core.settings import Quantization, Settings
from harness.core.suite import Example
from harness.core.trainer_arguments import NF4, lora_arguments, machine_arguments, sft_arguments
from harness.core.units import DeviceKind

LONGEST = 69
"""Longest line of the code, in characters, as far as the values allow: two such lines fit side by side on A4."""

PRECISE = """\
# Between SFTTrainer(...) and trainer.train(): TRL casts a QLoRA
# adapter to bf16, which loses small updates, and which fp16's
# gradient scaler refuses (huggingface/trl#4901).
for parameter in trainer.model.parameters():
    if parameter.requires_grad:
        parameter.data = parameter.data.float()
"""


LORAPLUS = """\
# Also between SFTTrainer(...) and trainer.train(): LoRA+ trains the
# matrices B with a higher learning rate.
from peft.optimizers import create_loraplus_optimizer

optimizer, options = trainer.get_optimizer_cls_and_kwargs(
    trainer.args, trainer.model
)
trainer.optimizer = create_loraplus_optimizer(
    trainer.model,
    optimizer,
    loraplus_lr_ratio={ratio},
    loraplus_weight_decay=trainer.args.weight_decay,
    **options,
)
"""


REHEARSAL = """\
# Add these rows to your training rows. They are the base model's own
# answers to other prompts (rehearsal), so that the model keeps what
# it could do. Without them, you train another model than the one
# that was evaluated.
"""


def script(settings: Settings, machine: Machine, seed: int, rehearsal: Iterable[Example] = ()) -> str:
    """Return the code that configures the training, with its imports, and with the rehearsal rows of the trial."""
    names = ["from peft import LoraConfig", "from trl import SFTConfig"]
    parts = [f"lora_config = {lora_config(settings)}", f"sft_config = {sft_config(settings, machine, seed)}"]
    if settings.quantization is Quantization.NF4:
        names = ["import torch", "from peft import LoraConfig", "from transformers import BitsAndBytesConfig", names[1]]
        parts.insert(0, f"quantization_config = {quantization_config(machine)}")
    rows = [{"messages": as_chat(row.messages)} for row in rehearsal]
    added = [f"{REHEARSAL}rehearsal_rows = {listing(rows)}", ""] if rows else []
    ratio = settings.loraplus_lr_ratio
    loraplus = [LORAPLUS.format(ratio=literal(ratio))] if ratio != 1 else []
    return "\n".join([*names, "", *parts, "", PRECISE, *loraplus, *added])


def sft_config(settings: Settings, machine: Machine, seed: int) -> str:
    """Return a call of TRL's SFTConfig with the arguments of the reference engine that matter outside a benchmark."""
    arguments = {"output_dir": "adapter", **sft_arguments(settings, seed), **machine_arguments(machine)}
    if machine.kind is not DeviceKind.CUDA:
        del arguments["gradient_checkpointing_kwargs"]
    text = call("SFTConfig", arguments)
    warmup = f"    warmup_steps={settings.warmup!r},"
    return text.replace(warmup, f"{warmup}  # below 1: a share of all steps") if settings.warmup < 1 else text


def lora_config(settings: Settings) -> str:
    """Return a call of PEFT's LoraConfig."""
    return call("LoraConfig", lora_arguments(settings))


def quantization_config(machine: Machine) -> str:
    """Return a call of transformers' BitsAndBytesConfig for a base model in NF4."""
    dtype = f"    bnb_4bit_compute_dtype=torch.{machine.compute_dtype},\n"  # an attribute of torch, so not a literal
    return f"{call('BitsAndBytesConfig', NF4).removesuffix(')')}{dtype})"


def call(name: str, arguments: dict[str, Any]) -> str:
    """Return a call of `name` as code with one keyword argument per line; values may contain any text."""
    return f"{name}(\n{''.join(_argument(key, value) for key, value in arguments.items())})"


def _argument(key: str, value: Any) -> str:
    """Return a keyword argument on one line. A list that is too long for a line has several."""
    line = f"    {key}={literal(value)},"
    if len(line) <= LONGEST or not isinstance(value, list):
        return f"{line}\n"
    lines: list[str] = []
    for element in map(literal, value):
        if lines and len(f"{lines[-1]} {element},") <= LONGEST:
            lines[-1] += f" {element},"
        else:
            lines.append(f"        {element},")
    return "\n".join([f"    {key}=[", *lines, "    ],\n"])


def listing(values: Iterable[Any]) -> str:
    """Return values as a Python list with one value per line."""
    return "[\n" + "".join(f"    {literal(value)},\n" for value in values) + "]"


def literal(value: Any) -> str:
    """Return a value as a Python literal, with double quotes where possible.

    Characters that end a string, and invisible ones such as marks for text direction, are escaped.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        # Python has no literals for these values.
        return 'float("nan")' if math.isnan(value) else "1e999" if value > 0 else "-1e999"
    text = repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and text[0] == "'" and '"' not in text else text
