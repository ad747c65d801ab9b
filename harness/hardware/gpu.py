"""Find the GPU through its driver, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

CONTEXT = 450 * 2**20
"""Bytes of a CUDA context, which PyTorch's allocator does not count (450 MiB +- 100 MiB on an H100 and on a T4)."""


@dataclass(frozen=True)
class Gpu:
    """A GPU: name, compute capability, total memory in bytes, and driver version."""

    name: str
    capability: tuple[int, int]
    memory: int
    driver: str = ""

    @property
    def capacity(self) -> int:
        """Bytes that PyTorch's allocator can use."""
        return self.memory - CONTEXT


def gpu() -> Gpu | None:
    """Return the first GPU that the driver reports and CUDA_VISIBLE_DEVICES does not hide; None if there is none."""
    import pynvml

    if first_visible(os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        if pynvml.nvmlDeviceGetCount() == 0:
            return None
        handle = driver_handle()
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
        return Gpu(
            _text(pynvml.nvmlDeviceGetName(handle)), (major, minor), memory, _text(pynvml.nvmlSystemGetDriverVersion())
        )
    finally:
        pynvml.nvmlShutdown()


def driver_handle() -> Any:
    """Return NVML's handle of the first GPU that CUDA uses. It is valid between `nvmlInit` and `nvmlShutdown`."""
    import pynvml

    which = first_visible(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if isinstance(which, str):
        return pynvml.nvmlDeviceGetHandleByUUID(which)
    return pynvml.nvmlDeviceGetHandleByIndex(which or 0)


def driver_bytes() -> int | None:
    """Return the bytes of GPU memory that this process uses, as the driver reports them; None if it reports none.

    In many containers the driver does not know this process's id. The memory in use on the whole GPU is no substitute,
    since it includes that of other processes.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        return bytes_of(pynvml.nvmlDeviceGetComputeRunningProcesses(driver_handle()), os.getpid())
    except pynvml.NVMLError:
        return None


def bytes_of(processes: Iterable[Any], pid: int) -> int | None:
    """Return the GPU memory of the process `pid` in NVML's list of processes; None if it is not listed with one."""
    return next((int(each.usedGpuMemory) for each in processes if each.pid == pid and each.usedGpuMemory), None)


def first_visible(variable: str | None) -> int | str | None:
    """Return the index or UUID of the first GPU in a value of CUDA_VISIBLE_DEVICES; None if it hides all GPUs."""
    first = "0" if variable is None else variable.split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return first
    return int(first) if first.isdigit() else None


def _text(given: str | bytes) -> str:
    return given if isinstance(given, str) else given.decode()
