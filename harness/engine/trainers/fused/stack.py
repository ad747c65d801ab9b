"""The adapters of all trials on one base, stacked so that one batched product computes them all.

For every target module `A` is (trials, rank, in) and `B` is (trials, out, rank), padded with zeros to the largest rank.
Padding is exact: zero rows of `A` and zero columns of `B` add nothing and get no gradient. The base's own product is
computed once for the rows of all trials. A batched product never mixes trials, so a NaN of one trial does not spread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.engine.trainers.fused.layout import CurrentPass, PassRow

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from harness.engine.trainers.fused.layer import Pair, StackedLinear


@dataclass(frozen=True)
class Adapter:
    """One adapter: `A`, (rank, in), `B`, (out, rank), and a scaling by module name; one dropout for all modules."""

    weights: Mapping[str, Pair]
    scaling: Mapping[str, float]
    dropout: float = 0.0


class Stack:
    """Adapters stacked on a base. A trial's slot is its position here; when a trial leaves, later trials move up."""

    def __init__(
        self, model: PreTrainedModel, adapters: Sequence[Adapter], *, dtype: torch.dtype | None = None
    ) -> None:
        """Wrap every module that an adapter has weights for. `dtype` is that of the stack, by default the adapters'."""
        from harness.engine.trainers.fused.layer import StackedLinear

        self._model, self._dtype = model, dtype
        self._pass = CurrentPass()
        self.adapters = [replace(adapter, weights={}) for adapter in adapters]
        self.layers: dict[str, StackedLinear] = {}
        names = {name for adapter in adapters for name in adapter.weights}
        for number, name in enumerate(name for name, _ in list(model.named_modules()) if name in names):
            layer = StackedLinear(model.get_submodule(name), self._pass, number)
            self.layers[name] = layer
            model.set_submodule(name, layer)
        try:
            self._fill({name: dict(enumerate(_weights(adapters, name))) for name in self.layers})
        except BaseException:
            # The caller has no stack that it could remove, and the next stack would wrap the layers of this one.
            self.remove()
            raise

    def remove(self) -> None:
        """Unwrap every module of the base."""
        for name, layer in self.layers.items():
            self._model.set_submodule(name, layer.base_layer)
        self.layers = {}

    def views(self) -> list[dict[str, Pair]]:
        """Return views of each trial's `A`, (rank, in), and `B`, (out, rank), by slot and module."""
        return self._by_slot({name: layer.views() for name, layer in self.layers.items()})

    def gradients(self) -> list[dict[str, Pair]]:
        """Return the gradients of `A`, (rank, in), and `B`, (out, rank), by slot and module; a module may lack them."""
        return self._by_slot({name: layer.gradients() or {} for name, layer in self.layers.items()})

    def _by_slot(self, found: Mapping[str, Mapping[int, Pair]]) -> list[dict[str, Pair]]:
        slots = range(len(self.adapters))
        return [{name: own[slot] for name, own in found.items() if slot in own} for slot in slots]

    def leave(self, slots: Collection[int]) -> None:
        """Remove the trials in these slots; the weights of all other trials are copied unchanged."""
        kept = [number for number in range(len(self.adapters)) if number not in slots]
        views = {name: layer.views() for name, layer in self.layers.items()}
        left = {name: {new: own[old] for new, old in enumerate(kept) if old in own} for name, own in views.items()}
        self.adapters = [self.adapters[number] for number in kept]
        self._fill({name: dict(found) for name, found in left.items()})

    def _fill(self, weights: Mapping[str, Mapping[int, Pair | None]]) -> None:
        self._pass.set_dropouts([adapter.dropout for adapter in self.adapters])
        for name, layer in self.layers.items():
            own = {slot: pair for slot, pair in weights[name].items() if pair is not None}
            layer.fill(own, [self.adapters[slot].scaling[name] for slot in own], self._dtype)

    def enter(self, rows: Sequence[PassRow]) -> None:
        """Set the rows of the next pass, sorted by slot. They stay valid until the backward of that pass has ended."""
        self._pass.enter(rows)

    def zero_grad(self) -> None:
        """Discard the gradients of all trials."""
        for layer in self.layers.values():
            layer.A.grad = layer.B.grad = None


def _weights(adapters: Sequence[Adapter], name: str) -> list[Pair | None]:
    return [adapter.weights.get(name) for adapter in adapters]
