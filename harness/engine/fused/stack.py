"""The adapters of all trials on one base: stacked, so that one product serves them all, each seeing its own rows only.

For every target module `A` is (trials, rank, in) and `B` is (trials, out, rank), padded with zeros to the largest rank.
That is exact: zero rows of `A` and zero columns of `B` add nothing and get no gradient. The base's own product is
computed once for the rows of all. A batched product never mixes trials, so that not even a NaN leaves its own rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from harness.engine.fused.layer import Pair, StackedLinear


@dataclass(frozen=True)
class Adapter:
    """What a trial puts on the base: by module name its `A` (rank, in) and `B` (out, rank), and how it is applied."""

    weights: Mapping[str, Pair]
    scaling: Mapping[str, float]
    dropout: float = 0.0


@dataclass(frozen=True)
class PassRow:
    """A row of a pass: whose it is, how long without padding, and what its dropout is drawn from.

    A slot that is nobody's sees the base alone.
    """

    slot: int
    length: int
    seed: tuple[int, ...] = ()


class Stack:
    """Adapters side by side on a base. Slots are positions: those behind one that leaves move up."""

    def __init__(
        self, model: PreTrainedModel, adapters: Sequence[Adapter], *, dtype: torch.dtype | None = None
    ) -> None:
        """Puts a layer around every module that one of the adapters has weights for, and holds these in `dtype`."""
        self._model, self._dtype = model, dtype
        self.adapters = [replace(adapter, weights={}) for adapter in adapters]
        self.rows: tuple[PassRow, ...] = ()
        self._layouts: dict[tuple[int, ...], Layout] = {}
        self.layers: dict[str, StackedLinear] = {}
        from harness.engine.fused.layer import StackedLinear

        names = {name for adapter in adapters for name in adapter.weights}
        for number, name in enumerate(name for name, _ in list(model.named_modules()) if name in names):
            layer = StackedLinear(model.get_submodule(name), self, number)
            self.layers[name] = layer
            model.set_submodule(name, layer)
        try:
            self._fill({name: dict(enumerate(_weights(adapters, name))) for name in self.layers})
        except BaseException:
            # Nobody has the stack yet that could remove it, and the next adapters would lie on its layers.
            self.remove()
            raise

    def remove(self) -> None:
        """Takes every layer off the base again."""
        for name, layer in self.layers.items():
            self._model.set_submodule(name, layer.base_layer)
        self.layers = {}

    def views(self) -> list[dict[str, Pair]]:
        """Each trial's own `A` and `B` by module, in the storage of the stack."""
        return self._by_slot({name: layer.views() for name, layer in self.layers.items()})

    def gradients(self) -> list[dict[str, Pair]]:
        """Their gradients likewise, of those that have one."""
        return self._by_slot({name: layer.gradients() or {} for name, layer in self.layers.items()})

    def _by_slot(self, found: Mapping[str, Mapping[int, Pair]]) -> list[dict[str, Pair]]:
        slots = range(len(self.adapters))
        return [{name: own[slot] for name, own in found.items() if slot in own} for slot in slots]

    def leave(self, slots: Collection[int]) -> None:
        """Takes trials out; what the others have learned stays as it is, in other storage."""
        kept = [number for number in range(len(self.adapters)) if number not in slots]
        views = {name: layer.views() for name, layer in self.layers.items()}
        left = {name: {new: own[old] for new, old in enumerate(kept) if old in own} for name, own in views.items()}
        self.adapters = [self.adapters[number] for number in kept]
        self._fill({name: dict(found) for name, found in left.items()})

    def _fill(self, weights: Mapping[str, Mapping[int, Pair | None]]) -> None:
        self._layouts = {}
        for name, layer in self.layers.items():
            own = {slot: pair for slot, pair in weights[name].items() if pair is not None}
            layer.fill(own, [self.adapters[slot].scaling[name] for slot in own], self._dtype)

    def enter(self, rows: Sequence[PassRow]) -> None:
        """Say whose the rows of the next pass are, in the order of slots; it holds through forward and backward."""
        self.rows = tuple(rows)
        self._layouts = {}

    def layout(self, members: tuple[int, ...], device: torch.device) -> Layout | None:
        """Where the rows of some slots lie in this pass; None where they have none."""
        if members not in self._layouts:
            self._layouts[members] = Layout([row.slot for row in self.rows], members, device)
        found = self._layouts[members]
        return found if found.any else None

    def zero_grad(self) -> None:
        for layer in self.layers.values():
            layer.A.grad = layer.B.grad = None


def _weights(adapters: Sequence[Adapter], name: str) -> list[Pair | None]:
    return [adapter.weights.get(name) for adapter in adapters]


class Layout:
    """Rows of a pass as (member, place): a member with fewer rows than another is filled up with zeros."""

    def __init__(self, slots: Sequence[int], members: tuple[int, ...], device: torch.device) -> None:
        import torch

        own = [[row for row, slot in enumerate(slots) if slot == member] for member in members]
        self.members, self.depth = len(members), max(map(len, own), default=0)
        self.any = self.depth > 0
        self.everybody = sum(map(len, own)) == len(slots)
        in_order = all(a <= b for a, b in pairwise(slots))
        self.even = self.everybody and in_order and all(len(rows) == self.depth for rows in own)
        self.ragged = any(len(rows) < self.depth for rows in own)
        if self.even or not self.any:
            return
        # A row of one's own, or else any: it is overwritten by zeros.
        places = [rows + [-1] * (self.depth - len(rows)) for rows in own]
        flat = [row for rows in places for row in rows]
        self.source = torch.tensor([max(row, 0) for row in flat], device=device)
        self.empty = torch.tensor([row < 0 for row in flat], device=device)[:, None, None]
        self.real = torch.tensor([place for place, row in enumerate(flat) if row >= 0], device=device)
        self.target = torch.tensor([row for row in flat if row >= 0], device=device)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, features) to (members, depth * tokens, features)."""
        import torch

        if not self.even:
            x = x.index_select(0, self.source)
            if self.ragged and torch.is_grad_enabled():  # else what is there too much is only left out again
                # Not multiplied by zero, which would let a neighbour's NaN through.
                x = x.masked_fill(self.empty, 0.0)
        return x.reshape(self.members, -1, x.shape[-1])

    def add(self, result: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """`result`, with what the members add to their own rows."""
        if self.even:
            return result + delta.reshape(result.shape)
        own = delta.reshape(-1, *result.shape[1:]).index_select(0, self.real)
        return result.index_add(0, self.target, own)
