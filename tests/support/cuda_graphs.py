"""Stands for CUDA graphs on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Recorder:
    """Captures a function: a replay runs it again, on the tensors that it was captured with."""

    def __init__(self, *, broken: bool = False, dtype: torch.dtype = torch.float64) -> None:
        """`dtype` is that of the function's result. If `broken`, nothing can be captured."""
        self.captured = self.replayed = 0
        self.broken, self._dtype = broken, dtype

    def __call__(self, run: Callable[[], torch.Tensor], pool: Any) -> tuple[Callable[[], object], torch.Tensor, Any]:
        self.captured += 1
        if self.broken:
            raise RuntimeError("operation not permitted when stream is capturing")
        output = torch.empty(0, dtype=self._dtype)

        def replay() -> None:
            self.replayed += 1
            found = run()
            output.resize_(found.shape).copy_(found)

        return replay, output, pool or "pool"
