"""Where trials run: one protocol, `run this job and say what happens`.

`processes` starts a worker process; `inline` runs a function in this process, for tests and debugging. A cluster's
would be a third: it needs the job's file, a place for the log, and a way to say events.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from harness.records import Event

__all__ = ["Executor"]


class Executor(Protocol):
    """Runs one job after another, each in whatever isolation it has."""

    def run(self, job: Path, log: Path, *, timeout: float | None, until: float | None = None) -> Iterator[Event]:
        """Do the job in the file `job`, keep what it prints in `log`, and yield what happens as it happens.

        The last event is always ENDED, and there is only one: SUCCEEDED when the worker did all it could, else
        OUT_OF_MEMORY, TIMED_OUT (no trial may take longer than `timeout` seconds), CANCELLED (the clock of
        `time.monotonic` has reached `until`) or FAILED. Closing the iterator stops the work.
        """
        ...
