"""Describe the environment of a run: the git commit of the harness, library versions, and the machine."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

import harness
from harness.core import programs
from harness.core.device_profiles import Profile, compute_dtype
from harness.core.errors import UsageError
from harness.core.machine import Machine, Provenance
from harness.core.measurement import Basis
from harness.core.units import DeviceKind
from harness.hardware.gpu import Gpu, gpu

STACK = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "tokenizers")
"""The libraries whose versions affect the result of a training."""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def versions() -> dict[str, str]:
    """Return the versions of the harness and of each library by name. A missing library has `not installed`."""
    installed = {name: _version(name) for name in (*STACK, "datasets", "evaluate")}
    # The version of the running code: a checkout is often not installed, or is installed as another version.
    return installed | {"qlora-harness": harness.__version__}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def stack_versions() -> dict[str, str]:
    return {name: versions()[name] for name in STACK}


def machine(profile: Profile, *, ask: Callable[[], Gpu | None] = gpu) -> Machine:
    """Return the machine on which a run computes. With the profile `auto`, it is the GPU if there is one, else the CPU.

    If the profile is that of a smaller GPU than this machine's, the machine is limited to the profile's memory and
    precision. `ask` finds the GPU; the default function asks the driver, without importing torch.

    Raises:
        UsageError: the profile needs a GPU, and this machine has none.
    """
    found = None if profile.kind is DeviceKind.CPU else ask()
    if found is None:
        if profile.kind is DeviceKind.CUDA:
            remedy = f"On Colab choose {profile.colab}; without a GPU use --profile cpu."
            raise UsageError(f"--profile {profile.name} needs an NVIDIA GPU, and this machine has none", remedy=remedy)
        return Machine(DeviceKind.CPU, cpu_name(), compute_dtype(None), threads=cores())
    emulated = profile.kind is DeviceKind.CUDA and not profile.is_device(found.name)
    return Machine(
        DeviceKind.CUDA,
        found.name,
        profile.dtype if emulated else compute_dtype(found.capability),
        Basis.EMULATED if emulated else Basis.MEASURED,
        profile.memory_cap or None,
        cores(),
    )


def memory_of(on: Machine, *, ask: Callable[[], Gpu | None] = gpu) -> int:
    """Return the bytes of memory that a worker on this machine can use: the GPU's, under its cap, or main memory."""
    if on.kind is DeviceKind.CPU:
        return main_memory()
    found = ask()
    return on.memory_cap or (found.capacity if found else 0)


def main_memory() -> int:
    """Return the bytes of this machine's main memory."""
    return int(psutil.virtual_memory().total)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    count = cores()
    return f"{next(names, platform.processor() or platform.machine())} ({count} {'cores' if count > 1 else 'core'})"


def cores() -> int:
    """Return the number of cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit_of(package: Path) -> tuple[str, bool]:
    """Return the git commit that an imported package is from, and whether its files differ from that commit.

    `package` is the package's folder. The commit is empty if git does not track the package. So it is for an installed
    wheel, even in a virtual environment that lies inside somebody's repository.
    """
    if not programs.git(package, "ls-files", "--error-unmatch", "__init__.py"):
        return "", False
    changed = programs.git(package, "status", "--porcelain", "--", ".")
    return programs.git(package, "rev-parse", "HEAD"), bool(changed)


def provenance(on: Machine, arguments: list[str]) -> Provenance:
    """Return the provenance of a run on this machine; `arguments` are the arguments of the command `harness`."""
    commit, changed = commit_of(Path(harness.__file__).parent)
    return Provenance(
        command=shlex.join(["harness", *arguments]),
        started=now(),
        versions=versions(),
        python=sys.version.split()[0],
        platform=platform.platform(),
        git_commit=commit,
        git_dirty=changed,
        machine=on,
    )
