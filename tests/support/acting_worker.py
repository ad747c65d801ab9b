"""A worker without a model, whose trials end in every way that trials can end, for tests of executors.

    python -m tests.support.acting_worker JOB [--stay]

A trial's learning rate says what it does; see `Act`. A trial that finishes commits a result to the cache.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from harness.core.job import Event, EventKind, Job
from harness.core.settings import Trial
from harness.core.training_outcome import Status
from harness.storage.records import encode_line, read_record
from tests.support.made_results import commit


class Act(Enum):
    """What a trial does, by its learning rate."""

    FINISH = 1e-4
    FAIL = 2e-4
    SHORT = 3e-4
    """Runs out of memory."""
    HANG = 4e-4
    DIE = 5e-4
    """Kills its worker."""
    MEET = 6e-4
    """Finishes as soon as another such trial has started, which a file in the model's folder shows."""
    WAIT = 7e-4
    """Finishes as soon as there is a file in the model's folder."""


def to(act: Act, seed: int = 0) -> Trial:
    """Return a trial that does this."""
    from tests.support.fake_workers import trial  # importing it takes longer than a worker's job

    return trial(act.value, seed)


def act(job: Job, emit: Callable[[Event], None]) -> None:
    """Do a job. Inline executors call this function."""
    emit(Event(EventKind.LOADED))
    for task in job.tasks:
        emit(Event(EventKind.STARTED, task.trial))
        does = Act(task.settings.learning_rate) if task.settings else Act.FINISH
        if does is Act.FAIL:
            raise RuntimeError("it broke")
        if does is Act.DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if does is Act.SHORT:
            emit(Event(EventKind.FINISHED, task.trial, Status.OUT_OF_MEMORY, "too large"))
            return
        while does is Act.HANG:
            emit(Event(EventKind.STEP, task.trial, done=1, total=2))
            time.sleep(0.05)
        while does is Act.WAIT and not list(Path(job.model.path).iterdir()):
            time.sleep(0.01)
        if does is Act.MEET:
            _meet(Path(job.model.path), task.trial)
        commit(job, task, save=_save)
        emit(Event(EventKind.FINISHED, task.trial, Status.SUCCEEDED))


def _save(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"weights")


def _meet(folder: Path, name: str) -> None:
    (folder / name).touch()
    until = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2:
        if time.monotonic() > until:
            raise RuntimeError("no other trial started")
        time.sleep(0.01)


if __name__ == "__main__":

    def say(event: Event) -> None:
        print(encode_line(event), flush=True)

    print("CUDA_VISIBLE_DEVICES:", os.environ.get("CUDA_VISIBLE_DEVICES"), file=sys.stderr, flush=True)
    act(read_record(Path(sys.argv[1]), Job), say)
