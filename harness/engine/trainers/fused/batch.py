"""The tensors of a pass: token ids, and the position, token and weight of everything that is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING

from harness.engine.tokenization import IGNORED, Row

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """The rows of a pass, padded on the right. No token attends to later padding, so attention needs no mask.

    Targets are the tokens with a label, row by row. The loss of a pass is the sum of their log-probabilities, each
    multiplied by the target's weight.
    """

    ids: torch.Tensor
    """(rows, tokens)"""
    positions: torch.Tensor
    """Where each target is predicted, in the flattened rows: one token before it; (targets,)."""
    targets: torch.Tensor
    """(targets,)"""
    weights: torch.Tensor
    """(targets,)"""

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers of rows, tokens of a row, and targets."""
        return (*self.ids.shape, len(self.targets))

    @property
    def labels(self) -> torch.Tensor:
        """The target at its own position, and IGNORED elsewhere; (rows, tokens). The first column has no meaning."""
        size = self.ids.numel()
        labels = self.ids.new_full((size + 1,), IGNORED)  # one more, for a target that only fills the batch up
        return labels.index_copy(0, self.positions + 1, self.targets)[:size].view(self.ids.shape)

    def copy_(self, other: Batch) -> None:
        """Overwrite the tensors with those of a batch of the same shape."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


def targets_of(row: Row) -> list[int]:
    """Return the positions of a row's tokens with a label; the first token is predicted by none."""
    return [place for place, label in enumerate(row.labels) if place and label != IGNORED]


def batch_of(
    rows: Sequence[Row],
    weights: Sequence[float],
    like: torch.Tensor,
    *,
    pad: int,
    tokens: int = 0,
    targets: int = 0,
) -> Batch:
    """Return the batch of these rows, with a weight for the targets of each row, on the device and in dtype of `like`.

    `pad` is the token that fills a row up. A batch has at least `tokens` tokens in a row, and at least `targets`
    targets: further ones have the weight 0, and a position at which no row predicts anything.
    """
    import torch

    tokens = max(tokens, *(len(row.input_ids) for row in rows))
    ids = [row.input_ids + [pad] * (tokens - len(row.input_ids)) for row in rows]
    own = [targets_of(row) for row in rows]
    places = [number * tokens + place - 1 for number, found in enumerate(own) for place in found]
    wanted = [row.labels[place] for row, found in zip(rows, own, strict=True) for place in found]
    weighted = list(chain.from_iterable([weight] * len(found) for weight, found in zip(weights, own, strict=True)))
    more = max(0, targets - len(wanted))
    return Batch(
        _sent(torch.tensor(ids), like),
        _sent(torch.tensor(places + [tokens - 1] * more), like),
        _sent(torch.tensor(wanted + [0] * more), like),
        _sent(torch.tensor(weighted + [0.0] * more, dtype=like.dtype), like),
    )


def _sent(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor in main memory on the device of `like`.

    From pinned memory, a copy to a GPU does not wait for the kernels that were started before it.
    """
    return tensor.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else tensor
