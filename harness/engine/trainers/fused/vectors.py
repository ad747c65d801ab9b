"""Stores the adapter matrices of many modules in one vector, module after module, so that few operations change all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from harness.engine.trainers.fused.layer import Pair

    Shapes = Mapping[str, tuple[torch.Size, torch.Size]]
    """The shapes of `A`, (rank, in), and `B`, (out, rank), by module."""


def shapes_of(weights: Mapping[str, Pair]) -> Shapes:
    """Return the shapes of these matrices by module, in the same order."""
    return {name: (a.shape, b.shape) for name, (a, b) in weights.items()}


def size_of(shapes: Shapes) -> int:
    """Return the number of weights of matrices with these shapes."""
    return sum(half.numel() for pair in shapes.values() for half in pair)


def pairs_of(vector: torch.Tensor, shapes: Shapes) -> dict[str, Pair]:
    """Return views of the first elements of `vector`, (at least size,): `A`, (rank, in), and `B`, (out, rank)."""
    import torch

    halves = [half for pair in shapes.values() for half in pair]
    parts = torch.split(vector[: size_of(shapes)], [half.numel() for half in halves])
    views = [part.view(half) for part, half in zip(parts, halves, strict=True)]
    return dict(zip(shapes, zip(views[::2], views[1::2], strict=True), strict=True))


def in_main_memory(vector: torch.Tensor) -> torch.Tensor:
    """Return a copy of a vector in main memory.

    A GPU copies many times faster to pinned memory, which is reused, than to memory that was never used before.
    """
    import torch

    if not vector.is_cuda:
        return vector.clone()
    pinned = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
    return pinned.copy_(vector).clone()
