"""The adapters of all trials on one base, stacked so that one batched product computes them all.

For every target module `A` is (trials, rank, in) and `B` is (trials, out, rank), padded with zeros to the largest rank.
Padding is exact: zero rows of `A` and zero columns of `B` add nothing and get no gradient. The base's own product is
computed once for the rows of all trials. A batched product never mixes trials, so a NaN of one trial does not spread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.engine.trainers.fused.block import Block, Outputs, padded_shapes
from harness.engine.trainers.fused.layout import CurrentPass, PassRow
from harness.engine.trainers.fused.vectors import pairs_of, shapes_of

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
            self._fill([adapter.weights for adapter in adapters])
        except BaseException:
            # The caller has no stack that it could remove, and the next stack would wrap the layers of this one.
            self.remove()
            raise

    def remove(self) -> None:
        """Unwrap every module of the base."""
        for name, layer in self.layers.items():
            self._model.set_submodule(name, layer.base_layer)
        self.layers = {}

    def leave(self, slots: Collection[int]) -> None:
        """Remove the trials in these slots; the weights of all other trials are copied unchanged."""
        kept = [slot for slot in range(len(self.adapters)) if slot not in slots]
        left = [self._own(slot, lambda block: block.weights) for slot in kept]
        self.adapters = [self.adapters[slot] for slot in kept]
        self._fill(left)

    def _fill(self, weights: Sequence[Mapping[str, Pair]]) -> None:
        """Copy the weights of every slot, by module, to new blocks, and make the layers compute with these."""
        self._pass.set_dropouts([adapter.dropout for adapter in self.adapters])
        self._shapes = [shapes_of(own) for own in weights]
        adapting: dict[tuple[int, ...], list[str]] = {}
        for name in self.layers:
            adapting.setdefault(tuple(slot for slot, own in enumerate(weights) if name in own), []).append(name)
            self.layers[name].members = ()
        self._blocks = [self._block(members, names, weights) for members, names in adapting.items() if members]

    def _block(self, members: tuple[int, ...], names: Sequence[str], weights: Sequence[Mapping[str, Pair]]) -> Block:
        """Return a block with these modules of these slots, and make the layers compute with it."""
        shapes = padded_shapes(names, [weights[slot] for slot in members])
        device = next(self.layers[names[0]].base_layer.parameters()).device
        block = Block(members, shapes, weights[members[0]][names[0]][0], device=device, dtype=self._dtype)
        for slot in members:
            for name, (a, b) in block.pairs(block.weights, slot, self._shapes[slot]).items():
                a.copy_(weights[slot][name][0])
                b.copy_(weights[slot][name][1])
        for name, pair in block.stacked(block.weights).items():
            self.layers[name].hold(members, pair, [self.adapters[slot].scaling[name] for slot in members])
        return block

    def _of(self, slot: int) -> list[Block]:
        return [block for block in self._blocks if slot in block.members]

    def enter(self, rows: Sequence[PassRow]) -> None:
        """Set the rows of the next pass, sorted by slot. They stay valid until the backward of that pass has ended."""
        self._pass.enter(rows)

    # --- training -------------------------------------------------------------------------------------------------

    @property
    def pattern(self) -> tuple[int, ...] | None:
        """The slot of each row of the pass; None if trials have dropout, since each pass then has its own numbers."""
        return None if any(adapter.dropout for adapter in self.adapters) else self._pass.slots

    def zero_grad(self) -> None:
        """Set the gradients of all trials to zero."""
        import torch

        for block in self._blocks:
            if block.gradients is None:
                block.gradients = block.weights.new_zeros(block.weights.shape)
                for name, pair in block.stacked(block.gradients).items():
                    self.layers[name].gradients = pair
                if block.weights.dtype is torch.float16:
                    self._watch(block)
            else:
                block.gradients.zero_()
                if block.outputs:
                    block.outputs.zero()

    def _watch(self, block: Block) -> None:
        import torch

        layers = [self.layers[name] for name in block.shapes]
        block.outputs = Outputs(torch.stack([layer.scaling.flatten() for layer in layers]))
        for layer, largest in zip(layers, block.outputs.of_pass, strict=True):
            layer.largest = largest

    def end_pass(self) -> None:
        """Take note of the gradients of a pass whose backward has ended."""
        for block in self._blocks:
            if block.outputs:
                block.outputs.end_pass()

    def reached(self) -> set[str]:
        """Return the names of the modules whose adapters have got a gradient."""
        return {name for name, layer in self.layers.items() if layer.reached}

    def norms(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the Euclidean norm of each trial's gradient, (trials,), computed in `dtype`.

        It is NaN if the gradient overflows in fp16, or would overflow if PEFT computed it.
        """
        import torch

        norm = torch.linalg.vector_norm
        rows = [[block.row(_gradients(block), slot) for block in self._of(slot)] for slot in range(len(self.adapters))]
        found = torch.stack([norm(torch.stack([norm(row, dtype=dtype) for row in own])) for own in rows])
        for block in self._blocks:
            if block.outputs:
                over = torch.tensor(block.members, device=found.device)[block.outputs.overflowed()]
                found[over] = torch.nan
        return found

    def read_gradient(self, slot: int, vector: torch.Tensor) -> None:
        """Copy a trial's gradient to `vector`, (size,): all `A` and `B` in the order of the trial's modules."""
        import torch

        stacked, own = self._parts(slot, vector, _gradients)
        torch._foreach_copy_(own, stacked)

    def write_weights(self, slot: int, vector: torch.Tensor) -> None:
        """Copy a trial's weights from `vector`, (size,): all `A` and `B` in the order of the trial's modules."""
        import torch

        stacked, own = self._parts(slot, vector, lambda block: block.weights)
        torch._foreach_copy_(stacked, own)

    def _parts(
        self, slot: int, vector: torch.Tensor, matrix: Callable[[Block], torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return a trial's parts of the blocks' matrices, and the same parts of its vector, (size,)."""
        shapes, blocks = self._shapes[slot], self._of(slot)
        if len(blocks) == 1 and blocks[0].shapes == shapes:  # usual: all trials have the same rank and modules
            return [blocks[0].row(matrix(blocks[0]), slot)], [vector]
        stacked, own = self._own(slot, matrix), pairs_of(vector, shapes)
        return [half for pair in stacked.values() for half in pair], [half for pair in own.values() for half in pair]

    def _own(self, slot: int, matrix: Callable[[Block], torch.Tensor]) -> dict[str, Pair]:
        """Return views of a trial's parts of the blocks' matrices, by module, in the order of the trial's modules."""
        shapes, found = self._shapes[slot], dict[str, "Pair"]()
        for block in self._of(slot):
            found |= block.pairs(matrix(block), slot, shapes)
        return {name: found[name] for name in shapes}


def _gradients(block: Block) -> torch.Tensor:
    if block.gradients is None:
        raise ValueError("gradients are read before zero_grad")
    return block.gradients
