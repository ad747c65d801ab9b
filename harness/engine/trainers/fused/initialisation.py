"""Initialises adapters as SFTTrainer does, by PEFT under the trial's seed, and saves them in PEFT's files."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from harness.core.settings import Settings
from harness.engine.loading import Base, untouched
from harness.engine.threads import in_threads
from harness.engine.trainers.fused.stack import Adapter
from harness.engine.trainers.fused.vectors import pairs_of, shapes_of, size_of
from harness.engine.trainers.sft import lora_config

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

    from harness.engine.trainers.fused.layer import Pair
    from harness.engine.trainers.fused.vectors import Shapes

_SAMPLE = 7
"""Number of modules that PEFT wraps with weights, to check that it draws them as expected."""


@dataclass(frozen=True)
class _Kind:
    """An adapter as PEFT makes it for a model and a configuration, without weights."""

    adapter: Adapter
    config: LoraConfig
    as_expected: bool
    """Whether PEFT draws the weights as `_draw` does."""


_KINDS: WeakKeyDictionary[Any, dict[tuple[str, torch.dtype], _Kind]] = WeakKeyDictionary()
"""The kinds that were made for each model: later passes on it need not let PEFT make them again."""


@dataclass(frozen=True)
class InitialAdapter:
    """An untrained adapter on the device of the base, and its PEFT configuration for this model."""

    adapter: Adapter
    """Its weights are views of `vector`."""
    config: LoraConfig
    vector: torch.Tensor
    """All weights in the precision of training, (size,)."""


def initial_adapters(base: Base, trials: Sequence[tuple[Settings, int]]) -> list[InitialAdapter]:
    """Return the adapters that SFTTrainer starts with for each (settings, seed); the base is unchanged afterwards.

    PEFT takes seconds per adapter to wrap the hundreds of modules of a 7B model. So it only wraps them once for each
    configuration, without weights, and the weights of all adapters are drawn in threads as PEFT would draw them. If
    PEFT draws a few modules differently, as another version might, it makes every adapter itself.
    """
    kinds = [_kind(base, settings) for settings, _ in trials]
    if not all(kind.as_expected for kind in kinds):
        return [initial_adapter(base, *trial) for trial in trials]

    def drawn(trial: tuple[_Kind, int]) -> InitialAdapter:
        kind, seed = trial
        return _initial(base, kind.adapter, kind.config, _draw(shapes_of(kind.adapter.weights), seed, base.device))

    return in_threads(drawn, [(kind, seed) for kind, (_, seed) in zip(kinds, trials, strict=True)])


def _kind(base: Base, settings: Settings) -> _Kind:
    import torch

    known, key = _KINDS.setdefault(base.model, {}), (repr(lora_config(settings)), torch.get_default_dtype())
    if key not in known:
        adapter, config = _by_peft(base, settings, low_cpu_mem_usage=True)
        known[key] = _Kind(adapter, config, _draws_as_peft(base, adapter, config))
    return known[key]


def initial_adapter(base: Base, settings: Settings, seed: int) -> InitialAdapter:
    """Return the adapter that SFTTrainer starts with under this seed, made by PEFT.

    SFTTrainer sets the seed, lets PEFT draw the weights, and on a quantised base rounds them to bf16. The harness then
    casts them to fp32.
    """
    import torch
    from transformers import set_seed

    set_seed(seed)
    adapter, config = _by_peft(base, settings)
    halves = [half.detach().flatten() for pair in adapter.weights.values() for half in pair]
    return _initial(base, adapter, config, torch.cat(halves))


def _initial(base: Base, like: Adapter, config: LoraConfig, vector: torch.Tensor) -> InitialAdapter:
    """Return the adapter with the weights in `vector`, (size,), rounded as SFTTrainer rounds them."""
    vector = _rounded(base, vector)
    weights = pairs_of(vector, shapes_of(like.weights))
    return InitialAdapter(replace(like, weights=weights), copy.deepcopy(config), vector)


def _by_peft(base: Base, settings: Settings, **options: Any) -> tuple[Adapter, LoraConfig]:
    """Return an adapter as PEFT makes it with these options of `get_peft_model`, and its configuration."""
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer

    with untouched(base.model):
        model = get_peft_model(base.model, lora_config(settings), **options)
        layers = {name: module for name, module in base.model.named_modules() if isinstance(module, LoraLayer)}
        scaling = {name: layer.scaling["default"] for name, layer in layers.items()}
        adapter = Adapter({name: _pair(layer) for name, layer in layers.items()}, scaling, settings.dropout)
        return adapter, copy.deepcopy(model.peft_config["default"])


def _pair(layer: Any) -> Pair:
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


def _draws_as_peft(base: Base, like: Adapter, config: LoraConfig) -> bool:
    """Whether `_draw` gives the weights that PEFT draws when it wraps only the first modules that `like` adapts."""
    import torch
    from peft import inject_adapter_in_model
    from transformers import set_seed

    names = list(like.weights)[:_SAMPLE]
    modules = torch.nn.Sequential(*(base.model.get_submodule(name) for name in names))
    few = copy.deepcopy(config)
    few.target_modules = {str(number) for number in range(len(names))}
    set_seed(0)
    by_peft = [half.detach() for layer in inject_adapter_in_model(few, modules) for half in _pair(layer)]
    drawn = _draw(shapes_of({name: like.weights[name] for name in names}), 0, base.device)
    return _rounded(base, drawn).equal(_rounded(base, torch.cat([half.flatten() for half in by_peft])))


def _draw(shapes: Shapes, seed: int, device: torch.device) -> torch.Tensor:
    """Draw an adapter of these shapes in fp32, (size,), using random numbers in PEFT's order.

    For each module, PEFT makes two new linear layers, which draws `A` and `B`. Then it draws `A` again and sets `B` to
    zero.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    vector = torch.zeros(size_of(shapes), dtype=torch.float32, device=device)
    # Drawing into a few hundred kilobytes, again and again, is faster than into main memory that was never used before.
    scratch = torch.empty(max(half.numel() for pair in shapes.values() for half in pair), dtype=torch.float32)
    for a, b in pairs_of(vector, shapes).values():
        for half in (a, b, a):
            drawn = scratch[: half.numel()].view(half.shape)
            torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        a.copy_(scratch[: a.numel()].view(a.shape))
    return vector


def _rounded(base: Base, vector: torch.Tensor) -> torch.Tensor:
    """Return weights, (size,), rounded as SFTTrainer rounds them, on the base's device and in `training_dtype`.

    PEFT rounds to the precision of the base, and TRL rounds the adapters of a quantised base to bf16.
    """
    import torch

    by_peft: torch.dtype = base.model.dtype
    by_trl = torch.bfloat16 if getattr(base.model, "is_loaded_in_4bit", False) else by_peft
    return vector.to(base.device).to(by_peft).to(by_trl).to(training_dtype(base))


def training_dtype(base: Base) -> torch.dtype:
    """Return the precision in which adapters are trained."""
    import torch

    return torch.promote_types(torch.float32, base.model.dtype)


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
