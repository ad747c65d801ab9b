"""The adapters of the trials that adapt the same modules, in one matrix with a row for each trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.engine.trainers.fused.vectors import pairs_of, size_of

if TYPE_CHECKING:
    import torch

    from harness.engine.trainers.fused.layer import Pair
    from harness.engine.trainers.fused.vectors import Shapes


class Block:
    """Adapters of the slots in `members`, padded with zeros to the largest rank that a module has in any of them."""

    gradients: torch.Tensor | None = None
    """The gradients of `weights` in the same shape, while the adapters are trained."""

    def __init__(
        self,
        members: tuple[int, ...],
        shapes: Shapes,
        like: torch.Tensor,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        """Make a block of zeros with these padded shapes; its dtype is by default that of the tensor `like`."""
        self.members, self.shapes = members, shapes
        self.weights = like.new_zeros((len(members), size_of(shapes)), device=device, dtype=dtype or like.dtype)
        """A row for each member, (members, size): its padded `A` and `B`, module after module."""

    def row(self, matrix: torch.Tensor, slot: int) -> torch.Tensor:
        """Return the row of a slot, (size,), in `weights` or `gradients`."""
        return matrix[self.members.index(slot)]

    def pairs(self, matrix: torch.Tensor, slot: int, shapes: Shapes) -> dict[str, Pair]:
        """Return views of a slot's matrices in `weights` or `gradients` by module, in these shapes without padding."""
        padded = pairs_of(self.row(matrix, slot), self.shapes)
        ranks = {name: shapes[name][0][0] for name in padded}
        return {name: (a[: ranks[name]], b[:, : ranks[name]]) for name, (a, b) in padded.items()}

    def stacked(self, matrix: torch.Tensor) -> dict[str, Pair]:
        """Return views of `weights` or `gradients` by module: `A` (members, rank, in), and `B` (members, out, rank)."""
        import torch

        halves = [half for pair in self.shapes.values() for half in pair]
        parts = torch.split(matrix, [half.numel() for half in halves], dim=1)
        views = [part.view(len(self.members), *half) for part, half in zip(parts, halves, strict=True)]
        return dict(zip(self.shapes, zip(views[::2], views[1::2], strict=True), strict=True))


def padded_shapes(names: Sequence[str], members: Sequence[Mapping[str, Pair]]) -> Shapes:
    """Return the shapes of these modules' matrices with the largest rank that any member has."""
    from torch import Size

    shapes = {}
    for name in names:
        (a, b), rank = members[0][name], max(own[name][0].shape[0] for own in members)
        shapes[name] = Size((rank, a.shape[1])), Size((b.shape[0], rank))
    return shapes
