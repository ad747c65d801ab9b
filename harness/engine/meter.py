"""Wall time and peak memory of one phase.

Peak resident memory never falls within a process, so it cannot be read off at a phase's end: a thread samples it.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from types import TracebackType
from typing import Self

import psutil

from harness.records import Machine, Measurement, Phase, PhaseCost

_INTERVAL = 0.02


class Meter:
    """`with Meter(...) as meter: work()`, then `meter.cost(phase, tokens)`."""

    def __init__(self, machine: Machine, model: str) -> None:
        self._machine, self._model = machine, model
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._resident = self._device = 0
        self.seconds = 0.0

    def __enter__(self) -> Self:
        # A trainer refers to itself: until it is collected, an earlier phase's optimizer state lies in this one's way.
        gc.collect()
        self._reset_cuda()
        self._look()
        self._thread.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._machine.kind == "cuda" and error is None:
            import torch

            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._started
        self._stop.set()
        self._thread.join()
        self._look()

    def _sample(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        self._resident = max(self._resident, self._process.memory_info().rss)
        if self._machine.kind == "cuda":
            self._device = max(self._device, _driver_bytes())

    def _reset_cuda(self) -> None:
        if self._machine.kind == "cuda":
            import torch

            # What an earlier phase reserved and no longer uses is not this phase's.
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def cost(self, phase: Phase, tokens: int) -> PhaseCost:
        allocated = reserved = driver = None
        if self._machine.kind == "cuda":
            import torch

            allocated = self._measurement(torch.cuda.max_memory_allocated(), "bytes")
            reserved = self._measurement(torch.cuda.max_memory_reserved(), "bytes")
            driver = self._measurement(self._device, "bytes") if self._device else None
        seconds, resident = self._measurement(self.seconds, "s"), self._measurement(self._resident, "bytes")
        return PhaseCost(phase, seconds, tokens, resident, allocated, reserved, driver)

    def _measurement(self, value: float, unit: str) -> Measurement:
        return Measurement(value, unit, self._machine.basis, self._machine.device, self._model)


def _driver_bytes() -> int:
    """What the driver counts for this process; for the whole GPU where it tells no process apart (in a container)."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        own = [p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid == os.getpid()]
        if own and own[0]:
            return int(own[0])
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError:
        return 0
