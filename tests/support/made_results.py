"""Results that a worker without a model stores, for tests. Imports little, because tests start many such workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.core.answers import Answer
from harness.core.job import Job, Task
from harness.core.machine import Machine
from harness.core.measurement import Basis, Measurement, Phase, PhaseCost
from harness.core.training_outcome import Status, Training
from harness.core.units import DeviceKind, Unit
from harness.storage.cache import AnswerPass, Cache, state_id

MIB = 1 << 20


def machine(kind: str = "cpu", basis: Basis = Basis.MEASURED) -> Machine:
    if kind == "cpu":
        return Machine(DeviceKind.CPU, "Example CPU 2.0 GHz", "float32", threads=2)
    cap = int(14.2 * (1 << 30)) if basis is Basis.EMULATED else None
    return Machine(DeviceKind.CUDA, "NVIDIA H200" if cap else "Tesla T4", "float16", basis, cap)


def cost(phase: Phase, seconds: float, on: Machine | None = None, peak: int = 900 * MIB) -> PhaseCost:
    where = on or machine()

    def figure(value: float, unit: Unit) -> Measurement:
        return Measurement(value, unit, where.basis, where.device)

    gpu = figure(peak, Unit.BYTES) if where.kind == "cuda" else None
    return PhaseCost(phase, figure(seconds, Unit.SECONDS), int(seconds * 500), figure(peak, Unit.BYTES), gpu, gpu, gpu)


def commit(
    job: Job, task: Task, status: Status = Status.SUCCEEDED, *, save: Callable[[Path], None] | None = None
) -> None:
    """Write to the cache what a real worker would write for this task; `save` writes the adapter, if there is one."""
    cache = Cache(Path(job.cache))
    if task.settings and task.train:
        message = "" if status is Status.SUCCEEDED else status.value
        cache.commit_training(Training(task.training, status, message, (), cost(Phase.TRAIN, 5.0)), save)
        if task.until and status is Status.SUCCEEDED:
            cache.commit_training(Training(state_id(task.training), status, "", (), None), save)
    if task.prompts and status is Status.SUCCEEDED:
        answers = tuple(Answer(p.key, f"to {p.messages[-1].content}", 2, False) for p in task.prompts)
        costs = (cost(Phase.ANSWER_AFTER if task.settings else Phase.ANSWER_BEFORE, 2.0),)
        cache.commit_answers(task.training, AnswerPass(answers, costs))
