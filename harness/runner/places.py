"""Finds the places of this machine that can run a worker at the same time: its GPUs, or shares of its CPU's cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from harness.core.device_profiles import Profile
from harness.core.errors import UsageError
from harness.core.units import DeviceKind
from harness.core.wording import listed
from harness.hardware import environment
from harness.hardware.gpu import VISIBLE, Gpu, gpus
from harness.runner.executors.protocol import ONLY, Place

_ORDER = "CUDA_DEVICE_ORDER"


def local_places(
    profile: Profile,
    *,
    chosen: str | None = None,
    workers: int | None = None,
    ask: Callable[[], Mapping[int | str, Gpu]] = gpus,
) -> tuple[Place, ...]:
    """Return the places of this machine on which a run with this profile starts workers.

    Args:
        profile: the value of `--profile`.
        chosen: the value of `--gpus`: a number of GPUs, or the positions of GPUs among the visible ones.
        workers: the value of `--workers`: the number of workers on a CPU; None: one, until the work is known.
        ask: finds the visible GPUs.

    Raises:
        UsageError: there are no such GPUs, they are of different kinds, or an option does not fit the device.
    """
    found = {} if profile.kind is DeviceKind.CPU else dict(ask())
    if not found:
        if chosen is not None:
            what = "--profile cpu uses no GPU" if profile.kind is DeviceKind.CPU else "this machine has no NVIDIA GPU"
            raise UsageError(f"--gpus {chosen}: {what}", remedy="On a CPU, --workers N starts several workers.")
        return cpu_places(workers or 1)
    if workers is not None:
        remedy = "--gpus N sets their number. With --profile cpu, --workers N starts several workers on the CPU."
        raise UsageError(f"--workers {workers}: this run has one worker per GPU", remedy=remedy)
    words = _alike(found) if chosen is None else _chosen(chosen, found)
    threads = max(1, environment.cores() // len(words))
    return tuple(_of_gpu(word, list(found).index(word), threads, alone=len(words) == 1) for word in words)


def cpu_places(workers: int) -> tuple[Place, ...]:
    """Return the places of this many workers, which share the cores of this machine's CPU."""
    if workers == 1:
        return (ONLY,)
    threads = max(1, environment.cores() // workers)
    return tuple(Place(f"worker {number}", threads=threads) for number in range(1, workers + 1))


def _of_gpu(word: int | str, position: int, threads: int, *, alone: bool) -> Place:
    # NVML numbers GPUs by their place on the bus, and so does CUDA with this order.
    variables = {VISIBLE: str(word), _ORDER: os.environ.get(_ORDER, "PCI_BUS_ID")}
    return Place("" if alone else f"GPU {position}", variables, 0 if alone else threads)


def _alike(found: Mapping[int | str, Gpu]) -> list[int | str]:
    """Return the GPUs that are of the same kind as the first one."""
    first = next(iter(found.values()))
    return [word for word, each in found.items() if _kind(each) == _kind(first)]


def _chosen(text: str, found: Mapping[int | str, Gpu]) -> list[int | str]:
    """Return the GPUs that `--gpus` names."""
    words, parts = list(found), [part.strip() for part in text.split(",")]
    remedy = "Give a number of GPUs, such as 2, or positions separated by commas, such as 0,2."
    if not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise UsageError(f"--gpus {text!r} names no GPUs", remedy=remedy)
    positions = list(range(int(text))) if len(parts) == 1 else [int(part) for part in parts]
    if not positions or max(positions) >= len(words):
        raise UsageError(f"--gpus {text}: this machine has {len(words)} visible", remedy=remedy)
    kinds = {found[words[position]].name for position in positions}
    if len({_kind(found[words[position]]) for position in positions}) > 1:
        remedy = "Name GPUs of one kind: trials on different GPUs cannot be compared."
        raise UsageError(f"--gpus {text} names GPUs of different kinds: {listed(sorted(kinds))}", remedy=remedy)
    return [words[position] for position in positions]


def _kind(each: Gpu) -> tuple[str, int]:
    return each.name, each.memory
