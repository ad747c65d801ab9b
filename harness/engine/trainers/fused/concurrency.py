"""Estimates from tensor shapes how many trials fit in memory at once.

The estimate is the same for every worker on devices of one kind: it counts what the base model takes, and not what
happens to be free. If memory runs out nevertheless, `BatchedWorker` halves the number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psutil

from harness.core.settings import ALL_LINEAR, Settings
from harness.core.units import DeviceKind
from harness.engine.loading import Base
from harness.hardware.estimate.passes import SharedPass
from harness.models.adapter_config import matching_modules


def concurrency(base: Base, sweep: Sequence[Settings], most: int) -> int:
    """Return how many of the trials with these settings to train together: at least one, at most `most`."""
    shared = shared_pass(base)
    fitting = (shared.trials(adapter_weights(base, settings), settings.optimizer) for settings in sweep)
    return min(len(sweep), most, *fitting)


def shared_pass(base: Base) -> SharedPass:
    """Return the sizes that determine the memory of a pass over this base."""
    config = base.model.config.get_text_config()
    hidden = config.hidden_size
    return SharedPass(
        base.machine.kind,
        base.model.dtype.itemsize,
        hidden,
        getattr(config, "intermediate_size", 4 * hidden),
        config.num_hidden_layers,
        free_bytes(base),
    )


def free_bytes(base: Base) -> int:
    """Return the bytes of memory beside the base model, under the machine's cap if it has one."""
    footprint = int(base.model.get_memory_footprint())
    if base.machine.kind is DeviceKind.CPU:
        return int(psutil.virtual_memory().total) - footprint
    import torch

    return int(base.machine.memory_cap or torch.cuda.get_device_properties(0).total_memory) - footprint


def adapter_weights(base: Base, settings: Settings) -> int:
    """Return the number of weights of a trial's adapter."""
    return sum(settings.rank * sum(_sides(module)) for module in targets(base, settings))


def targets(base: Base, settings: Settings) -> list[Any]:
    """Return the modules that a trial's adapter has weights for."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head, wanted = base.model.get_output_embeddings(), settings.target_modules
    modules = [(name, module) for name, module in base.model.named_modules() if module is not head]
    if wanted == ALL_LINEAR:
        return [module for _, module in modules if isinstance(module, (Linear, Conv1D))]
    if isinstance(wanted, str):
        found = matching_modules(wanted, [name for name, _ in modules])
        return [module for name, module in modules if name in found]
    layers = {str(number) for number in settings.layers_to_transform}
    named = [
        module
        for name, module in modules
        if any(f".{name}".endswith(f".{target}") for target in wanted) and (not layers or layers & {*name.split(".")})
    ]
    return [module for module in named if sum(_sides(module))]


def _sides(module: Any) -> tuple[int, ...]:
    """Return the input and output size of a module's matrix; empty if it has none."""
    if hasattr(module, "in_features"):  # read first, since a 4-bit matrix is stored in another shape
        return (module.in_features, module.out_features)
    weight = getattr(module, "weight", None)
    return tuple(weight.shape) if weight is not None and weight.ndim == 2 else ()
