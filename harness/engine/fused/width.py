"""How many trials fit side by side: an estimate from shapes. What it gets wrong is halved when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psutil

from harness.engine.base import Base
from harness.records import DeviceKind, Settings

_STATES = {"8bit": 2, "adafactor": 1, "sgd": 0, "lion": 4, "adagrad": 4, "rmsprop": 4}
"""Bytes of optimizer state for each parameter, by a part of the optimizer's name; AdamW has 8."""
WIDEST = {DeviceKind.CPU: 8, DeviceKind.CUDA: 16}
"""More gain little, and a worker that is killed loses its pass."""
_SPARE = 0.85
"""Of what is free: allocators fragment, and estimates err."""


def width(base: Base, sweep: Sequence[Settings], pass_tokens: int) -> int:
    """How many of these trials to train at once, at least one."""
    room = 4 * max(adapter_weights(base, settings) for settings in sweep)
    free = _SPARE * free_bytes(base) - activations(base, pass_tokens) - room
    largest = max(1, *(adapter_bytes(base, settings) for settings in sweep))
    return max(1, min(len(sweep), WIDEST[base.machine.kind], int(free // largest)))


def free_bytes(base: Base) -> int:
    """What may still be allocated: under the machine's cap, or else on its device."""
    if base.machine.kind is DeviceKind.CPU:
        return int(psutil.virtual_memory().available)
    import torch

    limit = base.machine.memory_cap or torch.cuda.get_device_properties(0).total_memory
    return int(limit - torch.cuda.memory_allocated())


def adapter_bytes(base: Base, settings: Settings) -> int:
    """A trial's weights in fp32 and optimizer states, and in the stack weights and gradients as they are computed."""
    state = next((size for part, size in _STATES.items() if part in settings.optimizer), 8)
    computed: int = base.model.dtype.itemsize
    return (4 + state + 2 * computed) * adapter_weights(base, settings)


def adapter_weights(base: Base, settings: Settings) -> int:
    """How many weights a trial's adapter has."""
    return sum(settings.rank * sum(_sides(module)) for module in targets(base, settings))


def targets(base: Base, settings: Settings) -> list[Any]:
    """The modules that a trial's adapter lies on."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head, wanted = base.model.get_output_embeddings(), settings.target_modules
    modules = [(name, module) for name, module in base.model.named_modules() if module is not head]
    if isinstance(wanted, str):
        return [module for _, module in modules if isinstance(module, (Linear, Conv1D))]
    named = [module for name, module in modules if any(f".{name}".endswith(f".{target}") for target in wanted)]
    return [module for module in named if sum(_sides(module))]


def _sides(module: Any) -> tuple[int, ...]:
    """Of what a module multiplies with, what goes in and what comes out; nothing where it has no matrix."""
    if hasattr(module, "in_features"):  # a 4-bit matrix is stored in another shape
        return (module.in_features, module.out_features)
    weight = getattr(module, "weight", None)
    return tuple(weight.shape) if weight is not None and weight.ndim == 2 else ()


def activations(base: Base, tokens: int) -> int:
    """A pass's activations: each layer's input with checkpointing, else all that its backward needs, and one layer in
    full with the gradients of it (about 16 times the hidden size and 6 times the inner one, for each token)."""
    config = base.model.config.get_text_config()
    hidden, inner = config.hidden_size, getattr(config, "intermediate_size", 4 * config.hidden_size)
    layer = tokens * (16 * hidden + 6 * inner)
    kept = tokens * hidden if base.machine.kind is DeviceKind.CUDA else layer
    return int((kept * config.num_hidden_layers + layer) * base.model.dtype.itemsize)
