"""A stand-in for Slurm's queue: submitit's processes on this machine."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness.runner.executors.slurm_cluster import Function


@dataclass
class ProcessQueue:
    """Runs functions as submitit's LocalExecutor does, which can also preempt them and start them again."""

    jobs: list[Any] = field(default_factory=list)

    def submit(self, folder: Path, functions: Sequence[Function]) -> Sequence[Any]:
        """Start a process for each function."""
        from submitit import LocalExecutor

        executor = LocalExecutor(folder)
        executor.update_parameters(timeout_min=10)
        self.jobs += executor.submit_array(functions)
        return self.jobs[-len(functions) :]

    def exists(self, job: Any) -> bool:
        """Whether the job's process is running."""
        return not job.done()

    def cancel(self, job: Any) -> None:
        """Stop the job's process, and wait for it."""
        job.cancel()
        job._process.wait(timeout=60)

    def preempt(self, job: Any) -> None:
        """Send the signal that Slurm sends to all processes of a job before it preempts the job."""
        for process in psutil.Process(job._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGUSR2)

    def wait(self) -> None:
        """Wait until all processes have ended."""
        for job in self.jobs:
            job._process.wait(timeout=60)

    def cancel_left(self, folder: Path) -> None:
        """Do nothing: the processes of an earlier driver are not known."""
