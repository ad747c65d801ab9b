"""Settings as the arguments that TRL and PEFT take: what a reader copies into a notebook of their own."""

from __future__ import annotations

from harness.records import Machine, Quantization, Settings

_QUANTIZED = """\
import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig
from trl import SFTConfig

quantization = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.{dtype},
)
"""
_PLAIN = """\
from peft import LoraConfig
from trl import SFTConfig

"""
_REST = """\
adapter = LoraConfig(
    task_type="CAUSAL_LM",
    r={rank},
    lora_alpha={alpha},
    lora_dropout={dropout},
    use_rslora={rslora},
    target_modules={targets},
)
arguments = SFTConfig(
    output_dir="adapter",
    learning_rate={learning_rate},
    num_train_epochs={epochs},
    warmup_steps={warmup},{below}
    lr_scheduler_type="{scheduler}",
    per_device_train_batch_size={batch_size},
    gradient_accumulation_steps={accumulation},
    optim="{optimizer}",
    weight_decay={weight_decay},
    max_grad_norm={max_grad_norm},
    max_length={max_length},
    packing={packing},
    fp16={fp16},
    bf16={bf16},
    gradient_checkpointing={checkpointing},{reentrant}
)
# Under fp16 TRL leaves the adapter in bf16, which the gradient scaler refuses. After building the trainer:
# for p in trainer.model.parameters():
#     if p.requires_grad:
#         p.data = p.data.float()"""


def arguments(settings: Settings, machine: Machine) -> str:
    """Python that builds `quantization`, `adapter` and `arguments`; the engine trains with the same ones."""
    cuda = machine.kind == "cuda"
    head = _QUANTIZED if settings.quantization is Quantization.NF4 else _PLAIN
    targets = settings.target_modules
    return head.replace("{dtype}", machine.compute_dtype) + _REST.format(
        rank=settings.rank,
        alpha=settings.alpha or 2 * settings.rank,
        dropout=settings.dropout,
        rslora=settings.rslora,
        targets=repr(targets if isinstance(targets, str) else list(targets)),
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        warmup=settings.warmup,
        below="  # below 1: a share of all steps" if settings.warmup < 1 else "",
        scheduler=settings.scheduler.value,
        batch_size=settings.batch_size,
        accumulation=settings.gradient_accumulation,
        optimizer=settings.optimizer,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        max_length=settings.max_length,
        packing=settings.packing,
        fp16=cuda and machine.compute_dtype == "float16",
        bf16=cuda and machine.compute_dtype == "bfloat16",
        checkpointing=cuda,
        reentrant='\n    gradient_checkpointing_kwargs={"use_reentrant": False},' if cuda else "",
    )
