"""Estimates from tensor shapes how many trials fit in memory at once.

If memory runs out nevertheless, `BatchedWorker` halves the number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psutil

from harness.core.settings import Settings
from harness.core.units import DeviceKind
from harness.engine.loading import Base

_STATES = {"8bit": 2, "adafactor": 1, "sgd": 0, "lion": 4, "adagrad": 4, "rmsprop": 4}
"""Bytes of optimizer state for each parameter, by a part of the optimizer's name; AdamW has 8."""
MOST = {DeviceKind.CPU: 8, DeviceKind.CUDA: 16}
"""Largest number of trials that are trained together, by device kind.

More would save little time, and a killed worker loses all trials that it was training together."""
_USABLE = 0.85
"""Share of free memory that may be used: allocators fragment, and estimates have errors."""


def concurrency(base: Base, sweep: Sequence[Settings], pass_tokens: int) -> int:
    """Return how many of the trials with these settings to train together, at least one."""
    gradients = 4 * max(adapter_weights(base, settings) for settings in sweep)
    free = _USABLE * free_bytes(base) - activations(base, pass_tokens) - gradients
    largest = max(1, *(adapter_bytes(base, settings) for settings in sweep))
    return max(1, min(len(sweep), MOST[base.machine.kind], int(free // largest)))


def free_bytes(base: Base) -> int:
    """Return the bytes that can still be allocated, under the machine's cap if it has one."""
    if base.machine.kind is DeviceKind.CPU:
        return int(psutil.virtual_memory().available)
    import torch

    limit = base.machine.memory_cap or torch.cuda.get_device_properties(0).total_memory
    return int(limit - torch.cuda.memory_allocated())


def adapter_bytes(base: Base, settings: Settings) -> int:
    """Return the bytes of a trial: fp32 weights, optimizer state, and the weights and gradients in the stack."""
    state = next((size for part, size in _STATES.items() if part in settings.optimizer), 8)
    computed: int = base.model.dtype.itemsize
    return (4 + state + 2 * computed) * adapter_weights(base, settings)


def adapter_weights(base: Base, settings: Settings) -> int:
    """Return the number of weights of a trial's adapter."""
    return sum(settings.rank * sum(_sides(module)) for module in targets(base, settings))


def targets(base: Base, settings: Settings) -> list[Any]:
    """Return the modules that a trial's adapter has weights for."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head, wanted = base.model.get_output_embeddings(), settings.target_modules
    modules = [(name, module) for name, module in base.model.named_modules() if module is not head]
    if isinstance(wanted, str):
        return [module for _, module in modules if isinstance(module, (Linear, Conv1D))]
    named = [module for name, module in modules if any(f".{name}".endswith(f".{target}") for target in wanted)]
    return [module for module in named if sum(_sides(module))]


def _sides(module: Any) -> tuple[int, ...]:
    """Return the input and output size of a module's matrix; empty if it has none."""
    if hasattr(module, "in_features"):  # read first, since a 4-bit matrix is stored in another shape
        return (module.in_features, module.out_features)
    weight = getattr(module, "weight", None)
    return tuple(weight.shape) if weight is not None and weight.ndim == 2 else ()


def activations(base: Base, tokens: int) -> int:
    """Return the bytes of a pass's activations.

    They are the activations and gradients of one layer (for each token, about 16 times the hidden size plus 6 times the
    inner size), and what is kept of every layer: on a GPU its input (gradient checkpointing), on a CPU all activations.
    """
    config = base.model.config.get_text_config()
    hidden, inner = config.hidden_size, getattr(config, "intermediate_size", 4 * config.hidden_size)
    layer = tokens * (16 * hidden + 6 * inner)
    kept = tokens * hidden if base.machine.kind is DeviceKind.CUDA else layer
    return int((kept * config.num_hidden_layers + layer) * base.model.dtype.itemsize)
