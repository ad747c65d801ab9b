"""Chooses the number of workers on a CPU, if the user has not.

Small models leave cores idle: between products of small matrices, a worker's threads wait for each other and for
Python. Several workers with fewer threads each do not. Passes do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from harness.core.engines import Engine
from harness.core.errors import ModelError
from harness.core.run import RunManifest
from harness.core.settings import Settings, Trial
from harness.core.units import DeviceKind
from harness.hardware import environment
from harness.hardware.estimate.memory import FULL
from harness.hardware.estimate.passes import trials_together
from harness.hardware.estimate.predictions import Workload, resolved_workload
from harness.runner.composition import Composition

WORTHWHILE = 1e12
"""Smallest number of operations for each worker. A core takes 10 seconds and more for them, and a worker takes five to
start."""
_LIBRARIES = 3 * 2**29
"""Bytes of main memory that a worker takes beside its model and its pass."""


def cpu_workers(manifest: RunManifest, rules: Composition) -> int:
    """Return how many workers a run has on this CPU, unless its user chooses their number."""
    if manifest.provenance.machine.kind is not DeviceKind.CPU:
        return 1
    try:
        what = resolved_workload(manifest.model, manifest.suite, manifest.rehearsal)
    except ModelError:  # there is no prediction for this architecture
        return 1
    return planned_workers(what, manifest.plan.trials, manifest.engine, rules)


def planned_workers(
    what: Workload,
    trials: Sequence[Trial],
    engine: Engine,
    rules: Composition,
    *,
    cores: int | None = None,
    memory: int | None = None,
) -> int:
    """Return the number of workers for these trials: as many as there are cores, passes, work and main memory for.

    `cores` and `memory`, in bytes, are those of this machine unless they are given.
    """
    passes = rules.passes(engine, trials)
    work = sum(_operations(what, trial.settings) for trial in trials)
    most = min(cores or environment.cores(), len(passes), int(work // WORTHWHILE))
    together, memory = max(map(len, passes), default=1), memory or _memory()
    return next((count for count in range(most, 1, -1) if _fits(what, trials, together, memory / count)), 1)


def _memory() -> int:
    """Return the bytes of main memory that this process and its workers may use, for example in a container."""
    total = environment.main_memory()
    with suppress(OSError, ValueError):  # no such limit; `max` stands for none
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total


def _operations(what: Workload, settings: Settings) -> float:
    """Return roughly how many operations training and answering take, with prompts that are as long as rows.

    A token takes two operations per weight in a forward pass, and two in the backward pass of a frozen base model.
    """
    tokens = what.tokens(settings)
    answered = what.prompts * sum(tokens) / max(1, len(tokens))
    return 2 * (what.shape.quantised + what.shape.embedded) * (2 * settings.epochs * sum(tokens) + answered)


def _fits(what: Workload, trials: Sequence[Trial], together: int, memory: float) -> bool:
    """Whether a worker with this share of main memory, in bytes, has room for a pass of `together` trials."""
    room = memory - _LIBRARIES - FULL * what.shape.quantised  # a pass dequantises the base
    needed = max(2, together)  # any memory is predicted to have room for one
    try:
        return all(
            trials_together(what.shape, settings, DeviceKind.CPU, room) >= needed
            for settings in {trial.settings for trial in trials}
        )
    except ModelError:  # a target module is not one of the modules that predictions know
        return False
