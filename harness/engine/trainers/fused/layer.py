"""The layer that computes the adapters of all trials on one module of the base.

Importing this Python module imports torch, so import it only inside functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch

from harness.engine.trainers.fused.layout import CurrentPass

Pair = tuple[torch.Tensor, torch.Tensor]
"""The matrices `A`, (rank, in), and `B`, (out, rank), of one module's adapter."""


class StackedLinear(torch.nn.Module):
    """A linear module of the base with the adapters of its members: the trials that adapt it."""

    A: torch.nn.Parameter
    """The matrices `A` of all members; shape (members, largest rank, input features)."""
    B: torch.nn.Parameter
    """The matrices `B` of all members; shape (members, output features, largest rank)."""

    def __init__(self, base_layer: torch.nn.Module, current: CurrentPass, number: int) -> None:
        """Wrap `base_layer`; `number`, the layer's position in the stack, is a part of each dropout seed."""
        super().__init__()
        self.base_layer = base_layer
        self.members: tuple[int, ...] = ()
        self._ranks: dict[int, int] = {}
        self._pass = current
        self._number = number

    def fill(self, weights: Mapping[int, Pair], scaling: Sequence[float], dtype: torch.dtype | None = None) -> None:
        """Replace the adapters by `weights`: `A`, (rank, in), and `B`, (out, rank), for each member's slot.

        `scaling` has a number for each of these slots, in the same order. The layer holds the adapters in `dtype`, by
        default in the dtype that they have.
        """
        self.members = tuple(weights)
        self._ranks = {slot: a.shape[0] for slot, (a, _) in weights.items()}
        if not weights:
            return
        rank, pairs = max(self._ranks.values()), list(weights.values())
        (first_a, first_b), device = pairs[0], self._device
        a = first_a.new_zeros(len(pairs), rank, first_a.shape[1], device=device, dtype=dtype or first_a.dtype)
        b = first_b.new_zeros(len(pairs), first_b.shape[0], rank, device=device, dtype=a.dtype)
        for place, (own_a, own_b) in enumerate(pairs):
            a[place, : own_a.shape[0]] = own_a
            b[place, :, : own_b.shape[1]] = own_b
        self.A, self.B = torch.nn.Parameter(a), torch.nn.Parameter(b)
        self._scaling = torch.tensor(scaling, dtype=a.dtype, device=a.device)[:, None, None]

    @property
    def _device(self) -> torch.device:
        return next(self.base_layer.parameters()).device

    def views(self) -> dict[int, Pair]:
        """Return views of each member's `A`, (rank, in), and `B`, (out, rank), by slot."""
        return self._own(self.A.data, self.B.data) if self.members else {}

    def gradients(self) -> dict[int, Pair] | None:
        """Return the gradients of each member's `A`, (rank, in), and `B`, (out, rank), by slot, or None."""
        if not self.members or self.A.grad is None or self.B.grad is None:
            return None
        return self._own(self.A.grad, self.B.grad)

    def _own(self, a: torch.Tensor, b: torch.Tensor) -> dict[int, Pair]:
        halves = zip(self.members, a.unbind(), b.unbind(), strict=True)
        return {slot: (own_a[: self._ranks[slot]], own_b[:, : self._ranks[slot]]) for slot, own_a, own_b in halves}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `x`, (rows, tokens, in), to (rows, tokens, out): the base's output plus that of each row's adapter."""
        result: torch.Tensor = self.base_layer(x)
        layout = self._pass.layout(self.members, x.device) if self.members else None
        if layout is None:
            return result
        given = layout.gather(self._dropped(x) if self.training else x).to(self.A.dtype)
        inner = torch.bmm(given, self.A.transpose(1, 2))
        # Scale last, as PEFT does, so that fp16 gradients overflow where they do in PEFT.
        delta = torch.bmm(inner, self.B.transpose(1, 2)) * self._scaling
        return layout.add(result, delta.to(result.dtype))

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
