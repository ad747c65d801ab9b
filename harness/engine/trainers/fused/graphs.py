"""Runs passes of the same shape as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from harness.engine.cuda_graphs import Capture, CudaGraphs, cuda_graph
from harness.engine.trainers.fused.batch import Batch

if TYPE_CHECKING:
    import torch

TOKENS, TARGETS = 16, 4
"""Rows are padded to a multiple of `TOKENS`, and targets to a multiple of 1 / `TARGETS` of the tokens of a pass."""


class PassGraphs(CudaGraphs):
    """The graphs of a stack's passes, by shape. When the stack's tensors change, the graphs must be dropped.

    A shape is the numbers of rows, tokens and targets, and the pattern of rows: which trial each row belongs to.
    """

    def __init__(self, run: Callable[[Batch], torch.Tensor], capture: Capture = cuda_graph) -> None:
        """`run` runs forward and backward of a batch; it returns the log-probabilities of the batch's targets."""
        super().__init__(capture)
        self._run = run
        self._batches: dict[tuple[int, ...], Batch] = {}

    def has(self, shape: tuple[int, ...], pattern: tuple[int, ...] = ()) -> bool:
        """Whether batches of this shape have a graph: numbers of rows, tokens and targets, and the pattern of rows."""
        return self.captured((*shape, *pattern))

    def run(self, batch: Batch, pattern: tuple[int, ...] = (), *, capture: bool = True) -> torch.Tensor:
        """Run a batch, by its graph if its shape has been seen before; return the log-probabilities of its targets.

        If `capture` is false, no new graph is made.
        """
        shape = (*batch.shape, *pattern)
        held = self._batches.setdefault(shape, batch)
        if held is not batch:
            held.copy_(batch)
        return self(shape, partial(self._run, held), capture=capture)


def padded_tokens(longest: int) -> int:
    """Return the number of tokens to which rows with a longest one of this length are padded."""
    return -(-longest // TOKENS) * TOKENS


def padded_targets(targets: int, tokens: int) -> int:
    """Return the number of targets to which those of a pass with this number of tokens are padded."""
    share = -(-tokens // TARGETS)
    return -(-targets // share) * share
