"""Predict how many trials fit into memory together, in one pass over a shared base model.

The fused trainer stores each trial's adapter in fp32 with the optimizer's state, and once more in compute precision
with gradients. What a pass needs beside these does not grow with the number of trials.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.settings import Quantization, Settings
from harness.core.units import DeviceKind
from harness.hardware.estimate.memory import FULL, HALF, NF4, TABLES
from harness.models.architecture import ModelShape

PASS_TOKENS = {DeviceKind.CPU: 2048, DeviceKind.CUDA: 4096}
"""Number of padded tokens for which every forward and backward pass has room, by device kind."""
_LARGEST = 4
"""A pass on a GPU has at most so many times `PASS_TOKENS`."""
_GRAIN = 1024
"""The number of tokens of a pass with more than `PASS_TOKENS` is a multiple of this."""
_ACTIVATIONS = 0.4
"""Share of free memory that the activations of a pass with more than `PASS_TOKENS` tokens may take."""
_STATES = {"8bit": 2, "adafactor": 1, "sgd": 0, "lion": 4, "adagrad": 4, "rmsprop": 4}
"""Bytes of optimizer state for each parameter, by a part of the optimizer's name; AdamW has 8."""
_USABLE = 0.85
"""Share of free memory that may be used: allocators fragment, and estimates have errors."""


@dataclass(frozen=True)
class SharedPass:
    """The sizes that determine the memory of a pass."""

    kind: DeviceKind
    itemsize: int
    """Bytes of a number in compute precision."""
    hidden: int
    intermediate: int
    layers: int
    free: float
    """Bytes that are free beside the base model."""

    @property
    def tokens(self) -> int:
        """Largest number of padded tokens in a pass, unless a single row has more.

        Starting the kernels of a pass takes a GPU's host equally long for few and for many tokens. So a model that
        leaves much memory free has fewer, larger passes.
        """
        one = PASS_TOKENS[self.kind]
        if self.kind is DeviceKind.CPU:
            return one
        fitting = int(_ACTIVATIONS * self.free / self._activations(_GRAIN)) * _GRAIN
        return max(one, min(_LARGEST * one, fitting))

    def trials(self, weights: int, optimizer: str) -> int:
        """Return how many trials with adapters of `weights` weights fit into memory together, at least one."""
        room = _USABLE * self.free - self._activations(self.tokens) - FULL * weights
        return max(1, int(room // max(1, self._adapter(weights, optimizer))))

    def _adapter(self, weights: int, optimizer: str) -> int:
        state = next((size for part, size in _STATES.items() if part in optimizer), 8)
        return (FULL + state + 2 * self.itemsize) * weights

    def _activations(self, tokens: int) -> int:
        """Return the bytes of the activations of a pass with so many tokens.

        They are the activations and gradients of one layer (for each token, about 16 times the hidden size plus 6 times
        the inner size), and what is kept of every layer: on a GPU its input (gradient checkpointing), on a CPU all
        activations.
        """
        layer = tokens * (16 * self.hidden + 6 * self.intermediate)
        kept = tokens * self.hidden if self.kind is DeviceKind.CUDA else layer
        return (kept * self.layers + layer) * self.itemsize


def trials_together(shape: ModelShape, settings: Settings, kind: DeviceKind, capacity: float) -> int:
    """Return how many trials with these settings are predicted to fit into `capacity` bytes together, at least one.

    Raises:
        ModelError: one of the target modules is not a module of the model.
    """
    known = _shared_pass(shape, settings.quantization, kind, capacity)
    return known.trials(shape.trainable(settings.rank, settings.target_modules), settings.optimizer)


def pass_tokens(shape: ModelShape, quantization: Quantization, kind: DeviceKind, capacity: float) -> int:
    """Return the largest number of padded tokens of a forward pass that trials share."""
    return _shared_pass(shape, quantization, kind, capacity).tokens


def _shared_pass(shape: ModelShape, quantization: Quantization, kind: DeviceKind, capacity: float) -> SharedPass:
    itemsize = HALF if kind is DeviceKind.CUDA else FULL
    matrices = NF4 if quantization is Quantization.NF4 else itemsize
    tables = TABLES * shape.layers * len(shape.linears()) if quantization is Quantization.NF4 else 0
    base = shape.quantised * matrices + tables + itemsize * (shape.embedded + shape.others)
    return SharedPass(kind, itemsize, shape.hidden, shape.intermediate, shape.layers, capacity - base)
