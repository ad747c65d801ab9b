"""Runs passes of the same shape as CUDA graphs: all kernels of a pass start at once, without Python between them.

A small pass has more than ten thousand kernels. Starting them one by one takes longer than computing them.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.engine.trainers.fused.batch import Batch

if TYPE_CHECKING:
    import torch

Run = Callable[[Batch], "torch.Tensor"]
"""Runs forward and backward of a batch; returns the log-probabilities of its targets."""
Capture = Callable[[Callable[[], "torch.Tensor"], Any], "tuple[Callable[[], object], torch.Tensor, Any]"]
"""Captures a function in a memory pool, or in a new one; returns what replays it, its output, and the pool."""
TOKENS, TARGETS = 16, 4
"""Rows are padded to a multiple of `TOKENS`, and targets to a multiple of 1 / `TARGETS` of the tokens of a pass."""
_SEEN = 1
"""A shape is captured after it was seen this many times."""


def cuda_graph(run: Callable[[], torch.Tensor], pool: Any) -> tuple[Callable[[], object], torch.Tensor, Any]:
    """Capture a function as a CUDA graph (`Capture`)."""
    import torch

    graph = torch.cuda.CUDAGraph()
    # Other threads, such as those that sample memory, may use the GPU meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        output = run()
    return graph.replay, output, graph.pool()


class Graphs:
    """The graphs of a stack's passes, by shape. When the stack's tensors change, the graphs must be dropped.

    A shape is the numbers of rows, tokens and targets, and the pattern of rows: which trial each row belongs to.
    """

    def __init__(self, run: Run, capture: Capture = cuda_graph) -> None:
        self._run, self._capture = run, capture
        self._seen = Counter[tuple[int, ...]]()
        self._graphs: dict[tuple[int, ...], tuple[Batch, Callable[[], object], torch.Tensor]] = {}
        self._pool: Any = None
        self.usable = True
        """False after a capture has failed."""

    def drop(self) -> bool:
        """Drop all graphs and their memory; return whether there were any."""
        any_left = bool(self._graphs)
        self._graphs, self._pool = {}, None
        return any_left

    def __call__(self, batch: Batch, pattern: tuple[int, ...] = (), *, capture: bool = True) -> torch.Tensor:
        """Run a batch, by its graph if its shape has been seen before; return the log-probabilities of its targets.

        If `capture` is false, no new graph is made.
        """
        shape = (*batch.shape, *pattern)
        if shape not in self._graphs and self.usable and capture and self._seen[shape] >= _SEEN:
            self._add(shape, batch)
        self._seen[shape] += 1
        if shape not in self._graphs:
            return self._run(batch)
        held, replay, output = self._graphs[shape]
        held.copy_(batch)
        replay()
        return output.clone()  # the next replay overwrites it

    def _add(self, shape: tuple[int, ...], batch: Batch) -> None:
        """Capture passes of the shape of this batch; if that fails, use no further graphs."""
        held = replace(batch)
        try:
            replay, output, self._pool = self._capture(lambda: self._run(held), self._pool)
        except Exception:  # noqa: BLE001 - a model may do what a graph cannot hold; without graphs it trains as well
            traceback.print_exc()
            self.usable = False
        else:
            self._graphs[shape] = held, replay, output


def padded_tokens(longest: int) -> int:
    """Return the number of tokens to which rows with a longest one of this length are padded."""
    return -(-longest // TOKENS) * TOKENS


def padded_targets(targets: int, tokens: int) -> int:
    """Return the number of targets to which those of a pass with this number of tokens are padded."""
    share = -(-tokens // TARGETS)
    return -(-targets // share) * share
