"""The layer that computes the adapters of all trials on one module of the base.

Importing this Python module imports torch, so import it only inside functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from harness.engine.matrices import has_matrix
from harness.engine.trainers.fused.layout import CurrentPass, Layout
from harness.engine.trainers.fused.products import added_product, stacked_product

Pair = tuple[torch.Tensor, torch.Tensor]
"""The matrices `A`, (rank, in), and `B`, (out, rank), of one module's adapter."""


class StackedLinear(torch.nn.Module):
    """A linear module of the base with the adapters of its members: the trials that adapt it."""

    A: torch.Tensor
    """The matrices `A` of all members; shape (members, largest rank, input features)."""
    B: torch.Tensor
    """The matrices `B` of all members; shape (members, output features, largest rank)."""
    gradients: Pair | None
    """Tensors in the shapes of `A` and `B` to which backward adds their gradients; None if nothing is trained."""
    largest: torch.Tensor | None
    """Where backward writes the largest number in the gradient of each member's output, (members,); or None."""

    def __init__(self, base_layer: torch.nn.Module, current: CurrentPass, number: int) -> None:
        """Wrap `base_layer`; `number`, the layer's position in the stack, is a part of each dropout seed."""
        super().__init__()
        self.base_layer = base_layer
        self.members: tuple[int, ...] = ()
        self.gradients = self.largest = None
        self.reached = False
        """Whether backward has added a gradient."""
        self.recomputed = False
        """Whether gradient checkpointing runs the layer a second time in backward."""
        self._pass = current
        self._number = number

    def hold(self, members: tuple[int, ...], pair: Pair, scaling: Sequence[float]) -> None:
        """Replace the adapters by those of these slots, stacked in `pair`; `scaling` has a number for each slot.

        The layer computes with `A`, (members, rank, in), and `B`, (members, out, rank), without copying them.
        """
        self.members, self.gradients, self.largest = members, None, None
        self.A, self.B = (half.detach().requires_grad_() for half in pair)
        self.scaling = torch.tensor(scaling, dtype=self.A.dtype, device=self.A.device)[:, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `x`, (rows, tokens, in), to (rows, tokens, out): the base's output plus that of each row's adapter."""
        layout = self._pass.layout(self.members, x.device) if self.members else None
        if layout is None:
            result: torch.Tensor = self.base_layer(x)
            return result
        if self.gradients is not None:
            return self._trained(x, layout)
        given = layout.gather(x, fill=False).to(self.A.dtype)
        # PEFT scales the output. The inner product is hundreds of times smaller, and scaling it gives the same result.
        inner = torch.bmm(given, self.A.transpose(1, 2)) * self.scaling
        return layout.add_product(self.base_layer(x), inner, self.B.transpose(1, 2))

    def _trained(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Compute as `forward` does, so that backward adds the adapters' gradients to `gradients`."""
        dropped = self._dropped(x)
        computed = x.to(self.A.dtype)
        # A view of all rows needs no gradient of its own: it is added to that of the base's input in one product.
        given = None if layout.even and dropped is x else layout.gather(dropped, fill=True).to(self.A.dtype)
        if has_matrix(self.base_layer):
            return stacked_product(computed, given, self, layout).to(x.dtype)
        given = layout.gather(computed, fill=True) if given is None else given
        return added_product(self.base_layer(x), given, self, layout)

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Apply each trial's dropout to its rows of `x`, (rows, tokens, in).

        Every row has its own seed, so its mask does not depend on the other rows of the pass, and is the same in the
        second forward pass of gradient checkpointing.
        """
        rates = {slot: self._pass.dropouts[slot] for slot in self.members}
        if not any(rates.values()):
            return x
        kept = torch.ones_like(x)
        generator = torch.Generator(device=x.device)
        for place, row in enumerate(self._pass.rows):
            if rate := rates.get(row.slot, 0.0):
                generator.manual_seed(_seed(*row.seed, self._number))
                drawn = torch.rand((row.length, x.shape[-1]), generator=generator, device=x.device)
                kept[place, : row.length] = (drawn >= rate).to(x.dtype) / (1 - rate)
        return x * kept


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())
