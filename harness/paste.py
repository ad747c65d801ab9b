"""Settings as the arguments of TRL, PEFT and transformers that they are, ready to paste into a training script."""

from __future__ import annotations

from typing import Any

from harness.records import Machine, Quantization, Settings

PRECISE = """\
# Between SFTTrainer(...) and trainer.train(): TRL casts a QLoRA adapter to bf16, in which small updates are lost and
# which fp16's gradient scaler refuses (huggingface/trl#4901).
for parameter in trainer.model.parameters():
    if parameter.requires_grad:
        parameter.data = parameter.data.float()
"""
FP16 = "float16"
BF16 = "bfloat16"


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
    cuda = machine.kind == "cuda"
    arguments: dict[str, Any] = {
        "output_dir": "adapter",
        **training_arguments(settings, seed),
        "fp16": cuda and machine.compute_dtype == FP16,
        "bf16": cuda and machine.compute_dtype == BF16,
        "gradient_checkpointing": cuda,
        "logging_nan_inf_filter": False,
    }
    if cuda:
        arguments["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    text = call("SFTConfig", arguments)
    warmup = f"    warmup_steps={settings.warmup!r},"
    return text.replace(warmup, f"{warmup}  # below 1: a share of all steps") if settings.warmup < 1 else text


def training_arguments(settings: Settings, seed: int) -> dict[str, Any]:
    """Those of SFTConfig that are the same on every machine."""
    return {
        "seed": seed,
        "data_seed": seed,
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "warmup_steps": settings.warmup,
        "lr_scheduler_type": settings.scheduler.value,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "optim": settings.optimizer,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "max_length": settings.max_length,
        "packing": settings.packing,
    }


def lora_config(settings: Settings) -> str:
    """PEFT's LoraConfig."""
    return call("LoraConfig", lora_arguments(settings))


def lora_arguments(settings: Settings) -> dict[str, Any]:
    """Those of LoraConfig."""
    targets = settings.target_modules
    return {
        "task_type": "CAUSAL_LM",
        "r": settings.rank,
        "lora_alpha": settings.alpha or 2 * settings.rank,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rslora,
        "target_modules": targets if isinstance(targets, str) else list(targets),
        "bias": "none",
    }


def quantization_config(machine: Machine) -> str:
    """transformers' BitsAndBytesConfig of an NF4 base."""
    return (
        "BitsAndBytesConfig(\n"
        "    load_in_4bit=True,\n"
        '    bnb_4bit_quant_type="nf4",\n'
        "    bnb_4bit_use_double_quant=True,\n"
        f"    bnb_4bit_compute_dtype=torch.{machine.compute_dtype},\n"
        ")"
    )


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
