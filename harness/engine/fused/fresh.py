"""Adapters as SFTTrainer begins and ends with them: made by PEFT under the trial's seed, saved in PEFT's files."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.base import Base, untouched
from harness.engine.fused.stack import Adapter
from harness.engine.reference import lora_config
from harness.records import Settings

if TYPE_CHECKING:
    from peft import LoraConfig

    from harness.engine.fused.layer import Pair


@dataclass(frozen=True)
class Fresh:
    """An untrained adapter, in main memory, and the configuration that PEFT made of the settings for this model."""

    adapter: Adapter
    config: LoraConfig


def fresh(base: Base, settings: Settings, seed: int) -> Fresh:
    """The adapter that SFTTrainer begins with under this seed; the base is bare again afterwards.

    SFTTrainer seeds, lets PEFT draw, and rounds to bf16 on a quantised base, which the harness widens again to fp32.
    """
    import torch
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer
    from transformers import set_seed

    with untouched(base.model):
        set_seed(seed)
        model = get_peft_model(base.model, lora_config(settings))
        rounded = torch.bfloat16 if getattr(base.model, "is_loaded_in_4bit", False) else None
        wide = torch.promote_types(torch.float32, base.model.dtype)
        weights, scaling = {}, {}
        for name, module in base.model.named_modules():
            if isinstance(module, LoraLayer):
                halves = (module.lora_A["default"].weight, module.lora_B["default"].weight)
                a, b = (half.detach().to(rounded or half.dtype).to("cpu", wide, copy=True) for half in halves)
                weights[name], scaling[name] = (a, b), module.scaling["default"]
        config = copy.deepcopy(model.peft_config["default"])
    return Fresh(Adapter(weights, scaling, settings.dropout), config)


def save(weights: Mapping[str, Pair], config: LoraConfig, folder: Path) -> None:
    """As `PeftModel.save_pretrained` would: adapter_config.json and adapter_model.safetensors."""
    from safetensors.torch import save_file

    tensors = {
        f"base_model.model.{name}.lora_{half}.weight": tensor.cpu().contiguous()
        for name, pair in weights.items()
        for half, tensor in zip("AB", pair, strict=True)
    }
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    saved = copy.deepcopy(config)
    saved.inference_mode = True
    saved.save_pretrained(str(folder))
