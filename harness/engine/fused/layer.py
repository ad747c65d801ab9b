"""The layer that holds one module's adapters of all trials. Imports torch: it is imported by what already needs it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from harness.engine.fused.stack import Stack

Pair = tuple[torch.Tensor, torch.Tensor]


class StackedLinear(torch.nn.Module):
    """A linear module of the base with the adapters of all its trials (the members) beside it."""

    A: torch.nn.Parameter
    B: torch.nn.Parameter

    def __init__(self, base_layer: torch.nn.Module, stack: Stack, number: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.members: tuple[int, ...] = ()
        self._ranks: dict[int, int] = {}
        self._stack = stack
        self._number = number

    def fill(self, weights: Mapping[int, Pair], scaling: Sequence[float], dtype: torch.dtype | None = None) -> None:
        """Takes each member's `A` (rank, in) and `B` (out, rank), and the factor of their product.

        They are held in `dtype`, or else in the precision that they come in.
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
        """Each member's own `A` and `B`."""
        return self._own(self.A.data, self.B.data) if self.members else {}

    def gradients(self) -> dict[int, Pair] | None:
        """Likewise their gradients, if there are any."""
        if not self.members or self.A.grad is None or self.B.grad is None:
            return None
        return self._own(self.A.grad, self.B.grad)

    def _own(self, a: torch.Tensor, b: torch.Tensor) -> dict[int, Pair]:
        halves = zip(self.members, a.unbind(), b.unbind(), strict=True)
        return {slot: (own_a[: self._ranks[slot]], own_b[:, : self._ranks[slot]]) for slot, own_a, own_b in halves}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.base_layer(x)
        layout = self._stack.layout(self.members, x.device) if self.members else None
        if layout is None:
            return result
        given = layout.gather(self._dropped(x) if self.training else x).to(self.A.dtype)
        inner = torch.bmm(given, self.A.transpose(1, 2))
        # Scaled last, as PEFT does it: in fp16 a gradient then overflows here where it overflows there.
        delta = torch.bmm(inner, self.B.transpose(1, 2)) * self._scaling
        return layout.add(result, delta.to(result.dtype))

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        """`x` with each trial's dropout.

        Every row draws from a generator of its own, so that it draws the same in the second forward of gradient
        checkpointing, and in any company.
        """
        rates = {slot: self._stack.adapters[slot].dropout for slot in self.members}
        if not any(rates.values()):
            return x
        kept = torch.ones_like(x)
        generator = torch.Generator(device=x.device)
        for place, row in enumerate(self._stack.rows):
            if rate := rates.get(row.slot, 0.0):
                generator.manual_seed(_seed(*row.seed, self._number))
                drawn = torch.rand((row.length, x.shape[-1]), generator=generator, device=x.device)
                kept[place, : row.length] = (drawn >= rate).to(x.dtype) / (1 - rate)
        return x * kept


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())
