"""Adapters as SFTTrainer begins and ends with them: made by PEFT under the trial's seed, saved in PEFT's files."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.base import Base, untouched
from harness.engine.fused.stack import Adapter
from harness.engine.reference import lora_config
from harness.records import Settings

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

    from harness.engine.fused.layer import Pair


@dataclass(frozen=True)
class Fresh:
    """An untrained adapter, in main memory, and the configuration that PEFT made of the settings for this model."""

    adapter: Adapter
    config: LoraConfig


def begin(base: Base, trials: Sequence[tuple[Settings, int]]) -> list[Fresh]:
    """The adapters that SFTTrainer begins with under these settings and seeds; the base is bare again afterwards.

    PEFT makes one for each kind of adapter. Where it is found to draw as expected, the kind's other seeds are drawn
    without putting layers around hundreds of modules once more, which on a 7B takes seconds each.
    """
    made: dict[int, Fresh] = {}
    kinds: dict[str, list[int]] = {}
    for number, (settings, _) in enumerate(trials):
        kinds.setdefault(repr(lora_config(settings)), []).append(number)
    for first, *others in kinds.values():
        by_peft = made[first] = fresh(base, *trials[first])
        known = bool(others) and _same(_redrawn(by_peft, base, trials[first][1]), by_peft.adapter.weights)
        for number in others:
            settings, seed = trials[number]
            made[number] = (
                replace(by_peft, adapter=replace(by_peft.adapter, weights=_redrawn(by_peft, base, seed)))
                if known
                else fresh(base, settings, seed)
            )
    return [made[number] for number in range(len(trials))]


def fresh(base: Base, settings: Settings, seed: int) -> Fresh:
    """The adapter that SFTTrainer begins with under this seed, made by PEFT.

    SFTTrainer seeds, lets PEFT draw, and rounds to bf16 on a quantised base, which the harness widens again to fp32.
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
    return Fresh(Adapter(weights, scaling, settings.dropout), config)


def _redrawn(like: Fresh, base: Base, seed: int) -> dict[str, Pair]:
    """The same kind of adapter under another seed, drawn in the order in which PEFT draws: two new layers for each
    module, and the first one once more."""
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
    """In main memory, in full precision, with what SFTTrainer's rounding leaves of them."""
    import torch

    rounded = torch.bfloat16 if getattr(base.model, "is_loaded_in_4bit", False) else base.model.dtype
    a, b = (half.detach().to(rounded).to("cpu", wide(base), copy=True) for half in (a, b))
    return a, b


def wide(base: Base) -> torch.dtype:
    """The precision that adapters are trained in."""
    import torch

    return torch.promote_types(torch.float32, base.model.dtype)


def _same(one: Mapping[str, Pair], other: Mapping[str, Pair]) -> bool:
    return all(mine.equal(yours) for name in other for mine, yours in zip(one[name], other[name], strict=True))


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
