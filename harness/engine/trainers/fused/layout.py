"""Maps the rows of a pass to trials, and gathers the rows of each trial for the layers of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PassRow:
    """One row of a pass: the slot of its trial in the stack, its length without padding, and the seed of its dropout.

    A row whose slot belongs to no trial is computed by the base alone.
    """

    slot: int
    length: int
    seed: tuple[int, ...] = ()


class CurrentPass:
    """The rows of the current pass and the dropout of each slot, shared by all layers of a stack."""

    def __init__(self) -> None:
        self.rows: tuple[PassRow, ...] = ()
        self.slots: tuple[int, ...] = ()
        """The slot of each row."""
        self.dropouts: tuple[float, ...] = ()
        self._layouts: dict[tuple[int, ...], dict[tuple[int, ...], Layout]] = {}
        self._current: dict[tuple[int, ...], Layout] = {}

    def set_dropouts(self, dropouts: Sequence[float]) -> None:
        """Set the dropout of every slot, and discard the layouts that were computed before the slots changed."""
        self.dropouts, self._layouts, self._current = tuple(dropouts), {}, {}

    def enter(self, rows: Sequence[PassRow]) -> None:
        """Set the rows of the next pass, sorted by slot. They stay valid until the backward of that pass has ended."""
        self.rows, self.slots = tuple(rows), tuple(row.slot for row in rows)
        # Layouts are kept for later passes with the same slots: a CUDA graph can make none, and reads their tensors.
        self._current = self._layouts.setdefault(self.slots, {})

    def layout(self, members: tuple[int, ...], device: torch.device) -> Layout | None:
        """Return the layout of the current pass's rows of these slots; None if the pass has no row of them."""
        if members not in self._current:
            self._current[members] = Layout(self.slots, members, device)
        found = self._current[members]
        return found if found.any else None


class Layout:
    """An index of the rows of a pass as (members, depth), where depth is the largest number of rows that a member has.

    Members with fewer rows are padded with zero rows.
    """

    def __init__(self, slots: Sequence[int], members: tuple[int, ...], device: torch.device) -> None:
        """Index the rows of `members`; `slots` has the slot of each row of the pass."""
        import torch

        own = [[row for row, slot in enumerate(slots) if slot == member] for member in members]
        self.members, self.depth = len(members), max(map(len, own), default=0)
        self.any = self.depth > 0
        complete = sum(map(len, own)) == len(slots)
        in_order = all(a <= b for a, b in pairwise(slots))
        self.even = complete and in_order and all(len(rows) == self.depth for rows in own)
        self.ragged = any(len(rows) < self.depth for rows in own)
        if self.even or not self.any:
            return
        # A padding position reads row 0, and `gather` then overwrites what it read with zeros.
        places = [rows + [-1] * (self.depth - len(rows)) for rows in own]
        flat = [row for rows in places for row in rows]
        self.source = torch.tensor([max(row, 0) for row in flat], device=device)
        self.empty = torch.tensor([row < 0 for row in flat], device=device)[:, None, None]
        self.real = torch.tensor([place for place, row in enumerate(flat) if row >= 0], device=device)
        self.target = torch.tensor([row for row in flat if row >= 0], device=device)

    def gather(self, x: torch.Tensor, *, fill: bool) -> torch.Tensor:
        """Return `x`, (rows, tokens, features), as (members, depth * tokens, features).

        Padding rows are zero if `fill` is true. If not, they have some other row's values, which `add_product` ignores.
        """
        if not self.even:
            x = x.index_select(0, self.source)
            if self.ragged and fill:
                # Filling also removes a NaN of row 0, which multiplying by zero would keep.
                x = x.masked_fill(self.empty, 0.0)
        return x.reshape(self.members, -1, x.shape[-1])

    def add_product(
        self, result: torch.Tensor, inner: torch.Tensor, matrix: torch.Tensor, *, in_place: bool = False
    ) -> torch.Tensor:
        """Return `result`, (rows, tokens, features), with `inner @ matrix` added to the members' rows.

        `inner` is (members, depth * tokens, rank), and `matrix` is (members, rank, features).
        """
        import torch

        if self.even and result.dtype == inner.dtype:  # one kernel, which never writes the product by itself
            own = result.reshape(self.members, -1, result.shape[-1])
            return torch.baddbmm(own, inner, matrix, out=own if in_place else None).view(result.shape)
        product = torch.bmm(inner, matrix).to(result.dtype)
        if self.even:
            return result + product.view(result.shape)
        own = product.view(-1, *result.shape[1:]).index_select(0, self.real)
        return result.index_add_(0, self.target, own) if in_place else result.index_add(0, self.target, own)
