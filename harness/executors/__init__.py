"""Where trials run: one protocol, `run this job and say what happens`.

`processes` starts a worker process; `inline` runs a function in this process, for tests and debugging. A cluster's
would be a third: it needs the job's file, a place for the log, and a way to say events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from harness.records import Event, EventKind

__all__ = ["Deadline", "Executor"]


class Executor(Protocol):
    """Runs one job after another, each in whatever isolation it has."""

    def run(self, job: Path, log: Path, *, timeout: float | None, until: float | None = None) -> Iterator[Event]:
        """Do the job in the file `job`, keep what it prints in `log`, and yield what happens as it happens.

        The last event is always ENDED, and there is only one: SUCCEEDED when the worker did all it could, else
        OUT_OF_MEMORY, TIMED_OUT (no trial may take longer than `timeout` seconds), CANCELLED (the clock of
        `time.monotonic` has reached `until`) or FAILED. Closing the iterator stops the work.
        """
        ...


class Deadline:
    """When a worker is late: each trial in flight may take `timeout` seconds, those that are done together in turn."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._flying: set[str] = set()
        self.at = self._from_now()

    def heed(self, event: Event) -> None:
        """Time begins anew when a worker is ready and when a trial starts."""
        if event.kind is EventKind.STARTED:
            self._flying.add(event.trial)
        elif event.kind is EventKind.FINISHED:
            self._flying.discard(event.trial)
        if event.kind in (EventKind.LOADED, EventKind.STARTED):
            self.at = self._from_now()

    @property
    def left(self) -> float:
        """Seconds; infinite without a timeout."""
        return self.at - time.monotonic()

    def _from_now(self) -> float:
        return time.monotonic() + self._timeout * max(1, len(self._flying)) if self._timeout else math.inf
