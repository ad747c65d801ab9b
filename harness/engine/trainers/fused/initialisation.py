"""Initialises adapters as SFTTrainer does, by PEFT under the trial's seed, and saves them in PEFT's files."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.settings import Settings
from harness.engine.loading import Base, untouched
from harness.engine.trainers.fused.stack import Adapter
from harness.engine.trainers.sft import lora_config

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

    from harness.engine.trainers.fused.layer import Pair


@dataclass(frozen=True)
class InitialAdapter:
    """An untrained adapter in main memory, and its PEFT configuration for this model."""

    adapter: Adapter
    config: LoraConfig


def initial_adapters(base: Base, trials: Sequence[tuple[Settings, int]]) -> list[InitialAdapter]:
    """Return the adapters that SFTTrainer starts with for each (settings, seed); the base is unchanged afterwards.

    PEFT makes the first adapter of each configuration. If `_redrawn` reproduces that one, it also draws the others,
    because PEFT takes seconds per adapter to wrap the hundreds of modules of a 7B model.
    """
    made: dict[int, InitialAdapter] = {}
    kinds: dict[str, list[int]] = {}
    for number, (settings, _) in enumerate(trials):
        kinds.setdefault(repr(lora_config(settings)), []).append(number)
    for first, *others in kinds.values():
        by_peft = made[first] = initial_adapter(base, *trials[first])
        known = bool(others) and _same(_redrawn(by_peft, base, trials[first][1]), by_peft.adapter.weights)
        for number in others:
            settings, seed = trials[number]
            made[number] = (
                replace(by_peft, adapter=replace(by_peft.adapter, weights=_redrawn(by_peft, base, seed)))
                if known
                else initial_adapter(base, settings, seed)
            )
    return [made[number] for number in range(len(trials))]


def initial_adapter(base: Base, settings: Settings, seed: int) -> InitialAdapter:
    """Return the adapter that SFTTrainer starts with under this seed, made by PEFT.

    SFTTrainer sets the seed, lets PEFT draw the weights, and on a quantised base rounds them to bf16. The harness then
    casts them to fp32.
    """
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer
    from transformers import set_seed

    with untouched(base.model):
        set_seed(seed)
        model = get_peft_model(base.model, lora_config(settings))
        weights, scaling = {}, {}
        for name, module in base.model.named_modules():
            if isinstance(module, LoraLayer):
                weights[name] = _rounded(base, module.lora_A["default"].weight, module.lora_B["default"].weight)
                scaling[name] = module.scaling["default"]
        config = copy.deepcopy(model.peft_config["default"])
    return InitialAdapter(Adapter(weights, scaling, settings.dropout), config)


def _redrawn(like: InitialAdapter, base: Base, seed: int) -> dict[str, Pair]:
    """Draw an adapter with the configuration of `like` under this seed, using random numbers in PEFT's order.

    For each module, PEFT makes two new linear layers and then initialises `A` again.
    """
    import torch
    from transformers import set_seed

    set_seed(seed)
    drawn = {}
    for name, pair in like.adapter.weights.items():
        a, b = (torch.nn.Linear(half.shape[1], half.shape[0], bias=False).weight for half in pair)
        torch.nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        torch.nn.init.zeros_(b)
        drawn[name] = _rounded(base, a, b)
    return drawn


def _rounded(base: Base, a: torch.Tensor, b: torch.Tensor) -> Pair:
    """Return `a`, (rank, in), and `b`, (out, rank), rounded as SFTTrainer does, in main memory and `training_dtype`."""
    import torch

    rounded = torch.bfloat16 if getattr(base.model, "is_loaded_in_4bit", False) else base.model.dtype
    a, b = (half.detach().to(rounded).to("cpu", training_dtype(base), copy=True) for half in (a, b))
    return a, b


def training_dtype(base: Base) -> torch.dtype:
    """Return the precision in which adapters are trained."""
    import torch

    return torch.promote_types(torch.float32, base.model.dtype)


def _same(one: Mapping[str, Pair], other: Mapping[str, Pair]) -> bool:
    return all(mine.equal(yours) for name in other for mine, yours in zip(one[name], other[name], strict=True))


def save_weights(weights: Mapping[str, Pair], config: LoraConfig, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors as `PeftModel.save_pretrained` does."""
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
