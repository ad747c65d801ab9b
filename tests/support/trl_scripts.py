"""A training script that calls TRL and PEFT by hand, and the settings for which it is compared with the harness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.units import DeviceKind
from harness.engine.loading import Base
from tests.support.short_trainings import OPTIONS, rows_of

PATTERN = r"model\.layers\.[02]\..*\.(q_proj|up_proj)"
CASES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    *(
        (
            {"scheduler": each, "lr_scheduler_kwargs": tuple(options.items())},
            {"lr_scheduler_type": each.value, "lr_scheduler_kwargs": options},
            {},
        )
        for each, options in OPTIONS.items()
    ),
    ({"loraplus_lr_ratio": 16.0}, {}, {}),
    ({"loraplus_lr_ratio": 4.0, "use_dora": True}, {}, {"use_dora": True}),
    ({"target_modules": PATTERN}, {}, {"target_modules": PATTERN}),
    ({"use_dora": True}, {}, {"use_dora": True}),
    ({"layers_to_transform": (1, 3)}, {}, {"layers_to_transform": [1, 3]}),
    ({"layers_to_transform": (0,), "use_dora": True}, {}, {"layers_to_transform": [0], "use_dora": True}),
]
"""Settings of the harness, with the arguments of SFTConfig and those of LoraConfig that they become."""


def script(base: Base, folder: Path, *, arguments: dict[str, Any], lora: dict[str, Any], ratio: float = 0) -> Any:
    """Train with TRL and PEFT alone, as a script written by hand does, on the base's device; return the trainer.

    The adapter is cast to fp32, as the harness casts it. `ratio` is that of LoRA+.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from peft.optimizers import create_loraplus_optimizer
    from trl import SFTConfig, SFTTrainer

    rows, cuda = rows_of(base), base.machine.kind is DeviceKind.CUDA
    trainer = SFTTrainer(
        model=base.model,
        args=SFTConfig(
            output_dir=str(folder), learning_rate=5e-3, num_train_epochs=2, warmup_steps=1, max_length=512,
            optim="adamw_torch", per_device_train_batch_size=4, weight_decay=0.1, max_grad_norm=1.0, seed=0,
            data_seed=0, bf16=False, fp16=False, gradient_checkpointing=cuda,
            gradient_checkpointing_kwargs={"use_reentrant": False} if cuda else None, use_cpu=not cuda, logging_steps=1,
            report_to="none", save_strategy="no", disable_tqdm=True, dataloader_pin_memory=cuda, **arguments,
        ),
        train_dataset=Dataset.from_dict(
            {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}
        ),
        processing_class=base.tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=8, **({"target_modules": ["q_proj", "v_proj"]} | lora)
        ),
    )  # fmt: skip
    trainer.model.float()
    if ratio:
        trainer.optimizer = create_loraplus_optimizer(
            trainer.model, torch.optim.AdamW, lr=5e-3, loraplus_lr_ratio=ratio, loraplus_weight_decay=0.1
        )
    trainer.train()
    return trainer
