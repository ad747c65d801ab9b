"""The interface of executors, and the deadline by which an executor stops a worker."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from harness.core.job import Event, EventKind


class Executor(Protocol):
    """Runs jobs. Calls of `run` are independent, so the caller decides how many jobs run at the same time."""

    def run(self, job: Path, log: Path, *, timeout: float | None, until: float | None = None) -> Iterator[Event]:
        """Run the job in the file `job`, write its output to `log`, and yield its events as they happen.

        The last event, and only the last, is ENDED. Its status is SUCCEEDED if the worker completed its job, else
        OUT_OF_MEMORY, TIMED_OUT (a trial took longer than `timeout` seconds), CANCELLED (`time.monotonic()`
        reached `until`) or FAILED. Closing the iterator stops the worker.
        """
        ...


class Deadline:
    """The time at which a worker must be stopped: `timeout` seconds per trial in flight, since the last one started."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._in_flight: set[str] = set()
        self.at = self._from_now()

    def observe(self, event: Event) -> None:
        """Restart the countdown when the worker has loaded its model and whenever a trial starts."""
        if event.kind is EventKind.STARTED:
            self._in_flight.add(event.trial)
        elif event.kind is EventKind.FINISHED:
            self._in_flight.discard(event.trial)
        if event.kind in (EventKind.LOADED, EventKind.STARTED):
            self.at = self._from_now()

    @property
    def left(self) -> float:
        """Seconds until the deadline; infinite without a timeout."""
        return self.at - time.monotonic()

    def _from_now(self) -> float:
        return time.monotonic() + self._timeout * max(1, len(self._in_flight)) if self._timeout else math.inf
