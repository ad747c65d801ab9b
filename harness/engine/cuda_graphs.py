"""Runs functions of the same shape as CUDA graphs: all their kernels start at once, without Python between them.

A forward pass has thousands of kernels. On a fast GPU, starting them one by one takes longer than computing them.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Run = Callable[[], "torch.Tensor"]
"""A function whose inputs lie in the same tensors each time."""
Capture = Callable[[Run, Any], "tuple[Callable[[], object], torch.Tensor, Any]"]
"""Captures a function in a memory pool, or in a new one; returns what replays it, its output, and the pool."""
_SEEN = 1
"""A shape is captured after it was seen this many times."""


def cuda_graph(run: Run, pool: Any) -> tuple[Callable[[], object], torch.Tensor, Any]:
    """Capture a function as a CUDA graph (`Capture`)."""
    import torch

    graph = torch.cuda.CUDAGraph()
    # Other threads, such as those that sample memory, may use the GPU meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        output = run()
    return graph.replay, output, graph.pool()


class CudaGraphs:
    """The graphs of functions, by shape: whatever decides which kernels run, and on which tensors.

    When one of these tensors is replaced, the graphs must be dropped.
    """

    def __init__(self, capture: Capture = cuda_graph) -> None:
        self._capture = capture
        self._seen = Counter[Hashable]()
        self._graphs: dict[Hashable, tuple[Callable[[], object], torch.Tensor]] = {}
        self._pool: Any = None
        self.usable = True
        """False after a capture has failed."""

    def drop(self) -> bool:
        """Drop all graphs and their memory; return whether there were any."""
        any_left = bool(self._graphs)
        self._graphs, self._pool = {}, None
        return any_left

    def captured(self, shape: Hashable) -> bool:
        """Whether functions of this shape have a graph."""
        return shape in self._graphs

    def __call__(self, shape: Hashable, run: Run, *, capture: bool = True) -> torch.Tensor:
        """Return what `run` returns, by a graph if its shape has been seen before.

        If `capture` is false, no new graph is made.
        """
        if shape not in self._graphs and self.usable and capture and self._seen[shape] >= _SEEN:
            self._add(shape, run)
        self._seen[shape] += 1
        if shape not in self._graphs:
            return run()
        replay, output = self._graphs[shape]
        replay()
        return output.clone()  # the next replay overwrites it

    def _add(self, shape: Hashable, run: Run) -> None:
        """Capture a function; if that fails, use no further graphs."""
        try:
            replay, output, self._pool = self._capture(run, self._pool)
        except Exception:  # noqa: BLE001 - a model may do what a graph cannot hold; without graphs it gives the same
            traceback.print_exc()
            self.usable = False
        else:
            self._graphs[shape] = replay, output
