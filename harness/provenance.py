"""Where and with what a run was made: git state, library versions, the machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib import metadata
from pathlib import Path

from harness.devices import Gpu, gpu
from harness.errors import UsageError
from harness.records import T4_MEMORY_CAP, Basis, Machine, Provenance

STACK = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "tokenizers")
"""The libraries whose versions decide what a training gives."""


class Profile(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    T4 = "t4"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def versions() -> dict[str, str]:
    """Installed versions, by distribution; `not installed` where one is missing."""
    installed = {name: _version(name) for name in (*STACK, "datasets", "evaluate")}
    # Of the code that runs, not of what is installed: a checkout is often not installed, or was at another version.
    return installed | {"qlora-harness": sys.modules[__package__].__version__}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def stack_versions() -> dict[str, str]:
    return {name: versions()[name] for name in STACK}


def machine(profile: Profile, *, ask: Callable[[], Gpu | None] = gpu) -> Machine:
    """What to compute on. `auto` takes the GPU if there is one; `t4` holds a larger GPU to a T4's limits.

    `ask` finds the GPU: of the driver, so that torch need not be imported.

    Raises:
        UsageError: `t4` was asked for and there is no GPU.
    """
    found = None if profile is Profile.CPU else ask()
    if found is None:
        if profile is Profile.T4:
            remedy = "On Colab choose Runtime > Change runtime type > T4 GPU; without a GPU use --profile cpu."
            raise UsageError("--profile t4 needs an NVIDIA GPU, and this machine shows none", remedy=remedy)
        return Machine("cpu", cpu_name(), "float32", threads=_cores())
    name, capability = found.name, found.capability
    on_t4 = "T4" in name.split()
    if profile is Profile.T4 and not on_t4:
        return Machine("cuda", name, "float16", Basis.EMULATED, T4_MEMORY_CAP, _cores())
    # A T4 claims bf16 but only emulates it: the hardware has it from compute capability 8.0 on.
    dtype = "bfloat16" if capability >= (8, 0) else "float16"
    return Machine("cuda", name, dtype, Basis.MEASURED, T4_MEMORY_CAP if profile is Profile.T4 else None, _cores())


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    cores = _cores()
    return f"{next(names, platform.processor() or platform.machine())} ({cores} {'cores' if cores > 1 else 'core'})"


def _cores() -> int:
    """Cores this process may use; containers and Colab give fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _git(*words: str) -> str:
    try:
        done = subprocess.run(("git", *words), capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def provenance(on: Machine, arguments: list[str]) -> Provenance:
    """`arguments` are the words of the command line behind `harness`."""
    return Provenance(
        command=shlex.join(["harness", *arguments]),
        started=now(),
        versions=versions(),
        python=sys.version.split()[0],
        platform=platform.platform(),
        git_commit=_git("rev-parse", "HEAD"),
        git_dirty=bool(_git("status", "--porcelain")),
        machine=on,
    )
