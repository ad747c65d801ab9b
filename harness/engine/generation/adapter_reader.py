"""Reads many saved adapters into main memory quickly.

PEFT takes a while to wrap every module of the base and to remove the wrappers again. So only the first adapter of each
configuration is attached. It shows which tensors of the file belong to which module, and adapters with the same
configuration and the same tensors are then read from their files alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.generation.continuous_batching import read_adapter
from harness.engine.loading import Base
from harness.engine.trainers.fused.stack import Adapter

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class _Kind:
    """What adapters with one configuration have in common."""

    tensors: frozenset[tuple[object, ...]]
    """Name, shape and dtype of each tensor in the file."""
    names: Mapping[str, tuple[str, str]]
    """The names of each module's matrices `A` and `B`."""
    scaling: Mapping[str, float]


@dataclass(frozen=True)
class AdapterReader:
    """Reads adapters for one base. `attach` reads an adapter by attaching it."""

    base: Base
    attach: Callable[[Base, Path], Adapter | None] = read_adapter
    _kinds: dict[bytes, _Kind] = field(default_factory=dict, init=False, repr=False)
    """The kinds of adapters that were read, by their configuration files."""

    def read(self, folder: Path) -> Adapter | None:
        """Return the adapter in `folder`, or None if it is not plain LoRA, as `read_adapter` does."""
        from safetensors.torch import load_file

        path = folder / "adapter_model.safetensors"
        if not path.is_file():
            return self.attach(self.base, folder)
        held, configuration = load_file(str(path)), (folder / "adapter_config.json").read_bytes()
        kind = self._kinds.get(configuration)
        if kind and kind.tensors == _described(held):
            return Adapter({module: (held[a], held[b]) for module, (a, b) in kind.names.items()}, kind.scaling)
        found = self.attach(self.base, folder)
        if found and (names := _names(found, held)):
            self._kinds[configuration] = _Kind(_described(held), names, found.scaling)
        return found


def _described(held: Tensors) -> frozenset[tuple[object, ...]]:
    return frozenset((name, tuple(tensor.shape), tensor.dtype) for name, tensor in held.items())


def _names(found: Adapter, held: Tensors) -> dict[str, tuple[str, str]] | None:
    """Return the names in the file of each module's matrices; None if they are not found, or the file has others."""
    names = {}
    for module, pair in found.weights.items():
        a, b = (f"base_model.model.{module}.lora_{half}.weight" for half in "AB")
        if not all(
            name in held and held[name].dtype == own.dtype and held[name].equal(own)
            for name, own in zip((a, b), pair, strict=True)
        ):
            return None
        names[module] = (a, b)
    return names if 2 * len(names) == len(held) else None
