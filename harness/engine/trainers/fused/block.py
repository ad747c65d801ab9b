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
    outputs: Outputs | None = None
    """What is known of the gradients of the adapters' outputs, while the adapters are trained in fp16."""

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


class Outputs:
    """The largest number in the gradient of each adapter's output.

    PEFT multiplies this gradient by the scaling of the adapter, which may overflow in fp16. GradScaler then skips the
    step. A fused pass multiplies smaller numbers instead, so it must find out by itself which steps to skip.
    """

    def __init__(self, scalings: torch.Tensor) -> None:
        """Begin at zero; `scalings` is (modules, members), in fp16."""
        import torch

        self._scalings = scalings.abs()
        self.of_pass = torch.zeros_like(scalings)
        """The largest numbers of the current pass, (modules, members), which backward writes."""
        self._largest = torch.zeros_like(scalings)

    def zero(self) -> None:
        self.of_pass.zero_()
        self._largest.zero_()

    def end_pass(self) -> None:
        import torch

        torch.maximum(self._largest, self.of_pass, out=self._largest)

    def overflowed(self) -> torch.Tensor:
        """Return whether the gradient of an output, times the scaling, overflowed for each member, (members,)."""
        return ~(self._largest * self._scalings).isfinite().all(0)


def padded_shapes(names: Sequence[str], members: Sequence[Mapping[str, Pair]]) -> Shapes:
    """Return the shapes of these modules' matrices with the largest rank that any member has."""
    from torch import Size

    shapes = {}
    for name in names:
        (a, b), rank = members[0][name], max(own[name][0].shape[0] for own in members)
        shapes[name] = Size((rank, a.shape[1])), Size((b.shape[0], rank))
    return shapes
