"""Measures the wall time and peak memory of a phase; if a phase ran out of memory, describes what was in use.

The operating system reports only the peak of resident memory since the process started, so a thread samples the
current value instead. The thread also samples the GPU driver's figure, the only one that includes the CUDA context. If
the driver reports no figure of this process, as in many containers, it is computed from what the process knows.
"""

from __future__ import annotations

import gc
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

import psutil

from harness.core.machine import Machine
from harness.core.measurement import Basis, Measurement, Phase, PhaseCost, Shortage
from harness.core.units import DeviceKind, Unit
from harness.hardware.gpu import CONTEXT, driver_bytes

_INTERVAL = 0.02
_REQUEST = re.compile(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]iB)", re.IGNORECASE)
"""PyTorch's wording of a failed allocation, on CUDA and on a CPU."""
_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Messages of PyTorch on a CPU, the CUDA driver and cuBLAS if memory runs out; their errors have no own type."""
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


class Meter:
    """Measures a block of code: `with Meter(machine) as meter: work()`, then `meter.cost(phase, tokens)`."""

    def __init__(self, machine: Machine, driver: Callable[[], int | None] = driver_bytes) -> None:
        """`driver` returns the bytes of GPU memory that this process uses, or None if they are not known."""
        self._machine = machine
        self._driver = driver
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._resident = self._device = 0
        self.seconds = 0.0

    def __enter__(self) -> Self:
        # A trainer refers to itself: until garbage collection, the optimizer state of an earlier phase takes memory.
        gc.collect()
        self._reset_cuda()
        self._sample_once()
        self._thread.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._machine.kind is DeviceKind.CUDA and error is None:
            import torch

            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._started
        self._stop.set()
        self._thread.join()
        self._sample_once()

    def _sample(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._sample_once()

    def _sample_once(self) -> None:
        self._resident = max(self._resident, self._process.memory_info().rss)
        if self._machine.kind is DeviceKind.CUDA:
            self._device = max(self._device, self._driver() or 0)

    def _reset_cuda(self) -> None:
        if self._machine.kind is DeviceKind.CUDA:
            import torch

            # Memory that an earlier phase reserved and no longer uses must not count here, such as cuBLAS's workspaces
            # for the streams in which CUDA graphs were captured.
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def cost(self, phase: Phase, tokens: int) -> PhaseCost:
        """Return the measured time and memory as the cost of `phase` for `tokens` tokens."""
        seconds, resident = self._figure(self.seconds, Unit.SECONDS), self._figure(self._resident)
        if self._machine.kind is not DeviceKind.CUDA:
            return PhaseCost(phase, seconds, tokens, resident)
        import torch

        return PhaseCost(
            phase=phase,
            seconds=seconds,
            tokens=tokens,
            peak_resident=resident,
            peak_allocated=self._figure(torch.cuda.max_memory_allocated()),
            peak_reserved=self._figure(torch.cuda.max_memory_reserved()),
            peak_device=device_peak(self._machine, self._device, torch.cuda.max_memory_reserved(), _paged_bytes()),
            left_allocated=self._figure(torch.cuda.memory_allocated()),
            limit=self._figure(_limit(self._machine)),
        )

    def _figure(self, value: float, unit: Unit = Unit.BYTES) -> Measurement:
        return _measurement(self._machine, value, unit)


def out_of_memory(error: Exception) -> bool:
    """Whether an error means that the GPU or the machine ran out of memory."""
    import torch

    typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return typed or any(words in str(error) for words in _NO_MEMORY)


def shortage(machine: Machine, phase: Phase, error: Exception) -> Shortage:
    """Describe the memory in use when a phase ran out of it. Call this before anything else is measured."""

    def figure(value: float) -> Measurement:
        return _measurement(machine, value, Unit.BYTES)

    asked, resident = requested(str(error)), psutil.Process().memory_info().rss
    wanted = figure(asked) if asked is not None else None
    if machine.kind is not DeviceKind.CUDA:
        return Shortage(phase, wanted, figure(resident))
    import torch

    driver = driver_bytes()
    return Shortage(
        phase=phase,
        requested=wanted,
        resident=figure(resident),
        peak_allocated=figure(torch.cuda.max_memory_allocated()),
        peak_reserved=figure(torch.cuda.max_memory_reserved()),
        device=figure(driver) if driver else None,
        limit=figure(_limit(machine)),
        memory_cap=machine.memory_cap,
    )


def requested(message: str) -> int | None:
    """Read from an error message how many bytes PyTorch tried to allocate; None if the message has no such number."""
    found = _REQUEST.search(message)
    return round(float(found[1]) * _UNITS[found[2].lower()]) if found else None


def _measurement(machine: Machine, value: float, unit: Unit) -> Measurement:
    return Measurement(value, unit, machine.basis, machine.device)


def _limit(machine: Machine) -> int:
    import torch

    return machine.memory_cap or int(torch.cuda.get_device_properties(0).total_memory)


def device_peak(machine: Machine, driver: int, reserved: int, paged: int) -> Measurement:
    """Return the peak of GPU memory that this process used, in bytes.

    It is the peak that the driver reported for this process. If it reported none, `driver` is 0, and the peak is
    predicted: what PyTorch's allocator reserved, a CUDA context, and `paged`, the optimizer state that bitsandbytes
    allocated outside PyTorch.
    """
    if driver:
        return _measurement(machine, driver, Unit.BYTES)
    return replace(_measurement(machine, reserved + CONTEXT + paged, Unit.BYTES), basis=Basis.PREDICTED)


def _paged_bytes() -> int:
    """Return the bytes of all paged optimizer states in this process."""
    from bitsandbytes.functional import GlobalPageManager

    return sum(each.nbytes for each in GlobalPageManager.get_instance().paged_tensors)
