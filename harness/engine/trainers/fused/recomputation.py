"""Decides which decoder layers keep their activations for backward, and which compute them again (checkpointing).

A third of a step's time on a GPU is computing again what did not fit into memory. So after a first round, one layer
keeps its activations and is measured, and then as many layers do as the rest of the memory allows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from harness.core.machine import Machine
from harness.engine.loading import checkpoint
from harness.engine.trainers.fused.layer import StackedLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SPARE = 2**30
"""Bytes that stay free for the optimizers, for kernels, and for fragmentation."""


class Memory(Protocol):
    """The memory of a device, in bytes."""

    def allocated(self) -> int:
        """Return what tensors take now."""
        ...

    def left(self) -> int:
        """Return what was never used until now."""
        ...


@dataclass(frozen=True)
class GpuMemory:
    """The memory of the GPU that PyTorch may use, under the machine's cap if it has one."""

    machine: Machine

    def allocated(self) -> int:
        import torch

        return torch.cuda.memory_allocated()

    def left(self) -> int:
        import torch

        limit = self.machine.memory_cap or torch.cuda.get_device_properties(0).total_memory
        return int(limit) - torch.cuda.max_memory_reserved()


class Recomputation:
    """Gradient checkpointing of a model with a stack on it."""

    def __init__(self, model: PreTrainedModel, memory: Memory) -> None:
        """Switch checkpointing on for all layers."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        checkpoint(model)
        self._memory = memory
        self._layers: list[Any] = [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]
        self.kept = 0
        """Number of layers that keep their activations."""
        self.keep(0)

    def keep(self, count: int) -> None:
        """Let the last `count` layers keep their activations: backward frees them before it recomputes others."""
        self.kept = count
        for number, layer in enumerate(self._layers):
            again = number < len(self._layers) - count
            layer.gradient_checkpointing = again
            for module in layer.modules():
                if isinstance(module, StackedLinear):
                    module.recomputed = again

    @contextlib.contextmanager
    def measured(self, tokens: int) -> Iterator[None]:
        """Let one layer keep its activations until the context ends; then as many as fit with passes of `tokens`.

        If nothing ran in the context, or an error ended it, all layers are recomputed again.
        """
        if not self._layers:
            yield
            return
        self.keep(1)
        before, found = [0], list[float]()

        def begin(*_: Any) -> None:
            before[0] = self._memory.allocated()

        def end(_: Any, __: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            found.append((self._memory.allocated() - before[0]) / (hidden.numel() // hidden.shape[-1]))

        layer = self._layers[-1]
        handles = [layer.register_forward_pre_hook(begin), layer.register_forward_hook(end)]
        count = 0
        try:
            yield
            if found:
                size = max(found) * tokens
                # What was used includes the layer that is measured.
                count = affordable(self._memory.left() + size, size, len(self._layers))
        finally:
            for handle in handles:
                handle.remove()
            self.keep(count)


def affordable(left: float, size: float, layers: int) -> int:
    """Return how many layers can keep `size` bytes each if `left` bytes were never used; 0 if `size` is unknown."""
    return max(0, min(layers, int((left - _SPARE) / size))) if size > 0 else 0
