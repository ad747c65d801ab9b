"""Find the GPU through its driver, without torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"
_DIGITS = 9
"""Number of digits of the largest index of a GPU that is read."""
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


def gpu(which: int | str | None = None) -> Gpu | None:
    """Return the GPU with this index or UUID, by default the first that CUDA_VISIBLE_DEVICES names.

    None if the driver reports none, or if CUDA_VISIBLE_DEVICES hides all of them.
    """
    chosen = which if which is not None else first_visible(os.environ.get(VISIBLE))
    if chosen is None:
        return None
    with _driver() as count:
        return _described(_handle(chosen)) if count else None


def gpus() -> dict[int | str, Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES does not hide, by index or UUID, in its order."""
    with _driver() as count:
        known = visible(os.environ.get(VISIBLE), count)
        return {each: _described(_handle(each)) for each in known}


def count_of_gpus() -> int:
    """Return the number of GPUs that the driver reports, at least 1."""
    with _driver() as count:
        return max(1, count)


@contextlib.contextmanager
def _driver() -> Iterator[int]:
    """Open the driver's interface while the block runs; yield the number of GPUs, 0 if there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield 0
        return
    try:
        yield int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def _described(handle: Any) -> Gpu:
    import pynvml

    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    name, driver = _text(pynvml.nvmlDeviceGetName(handle)), _text(pynvml.nvmlSystemGetDriverVersion())
    return Gpu(name, (major, minor), memory, driver)


def driver_handle() -> Any:
    """Return NVML's handle of the first GPU that CUDA uses. It is valid between `nvmlInit` and `nvmlShutdown`."""
    return _handle(first_visible(os.environ.get(VISIBLE)) or 0)


def _handle(which: int | str) -> Any:
    import pynvml

    if isinstance(which, str):
        return pynvml.nvmlDeviceGetHandleByUUID(which)
    return pynvml.nvmlDeviceGetHandleByIndex(which)


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
    return next(iter(visible(variable, 1)), None)


def visible(variable: str | None, count: int) -> list[int | str]:
    """Return the indices or UUIDs of the GPUs in a value of CUDA_VISIBLE_DEVICES; None stands for all `count` GPUs.

    As in CUDA, a word that names no GPU, such as -1, hides the words after it.
    """
    if variable is None:
        return list(range(count))
    found: list[int | str] = []
    for word in map(str.strip, variable.split(",")):
        if word.startswith(("GPU-", "MIG-")):
            found.append(word)
        elif word.isascii() and word.isdecimal() and len(word) <= _DIGITS:
            found.append(int(word))
        else:
            break
    return found


def _text(given: str | bytes) -> str:
    return given if isinstance(given, str) else given.decode()
