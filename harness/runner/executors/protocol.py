"""The interface of executors, and the deadline by which an executor stops a worker."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.core.job import Event, EventKind
from harness.core.training_outcome import Status
from harness.hardware.gpu import VISIBLE, Gpu, gpu


@dataclass(frozen=True)
class Place:
    """A part of the hardware that runs one worker at a time, such as a GPU."""

    name: str = ""
    """The name in progress and messages, such as "GPU 0". It is empty if there is only one place."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the place's workers."""
    threads: int = 0
    """Number of CPU threads of a worker; 0: as many as the run's machine has."""

    def gpu(self) -> Gpu | None:
        """Return the first GPU that the place's workers see."""
        word = self.variables.get(VISIBLE)
        return gpu(int(word) if word and word.isdigit() else word)


ONLY = Place()
"""The place of an executor that runs one worker at a time."""


class Executor:
    """Base class of executors. An executor runs jobs, at most one at a time in each of its places.

    The caller runs each place in a thread of its own, which calls `run` for one job after another. When no further jobs
    follow, `close` is called.
    """

    keeps_workers: bool = False
    """Whether the next job of a place can use the base model that the place's last job has loaded."""

    @property
    def places(self) -> tuple[Place, ...]:
        """The places that can run a worker at the same time."""
        return (ONLY,)

    def gpu(self) -> Gpu | None:
        """Return the GPU of the places, which are all of one kind; None if there is none."""
        return gpu()

    def divided(self, workers: int) -> Executor:  # noqa: ARG002 - the number of most executors' workers is fixed
        """Return an executor with this many workers on the CPU, if the user has not chosen their number."""
        return self

    def run(
        self,
        job: Path,
        log: Path,
        *,
        timeout: float | None,
        until: float | None = None,
        place: Place = ONLY,
        stop: threading.Event | None = None,
    ) -> Generator[Event]:
        """Run the job in the file `job`, write its output to `log`, and yield its events as they happen.

        The last event, and only the last, is ENDED. Its status is SUCCEEDED if the worker completed its job, else
        OUT_OF_MEMORY, TIMED_OUT (a trial took longer than `timeout` seconds), CANCELLED (`time.monotonic()` reached
        `until`, or `stop` was set) or FAILED. It is `lost` if the worker's machine disappeared. Closing the iterator
        stops the worker.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the workers that wait for another job, so that their memory is free."""


def located(event: Event, where: str) -> Event:
    """Return the event; if it is a failure, its message also says where it happened, such as "GPU 1"."""
    ended = event.kind is EventKind.ENDED and event.status not in (Status.SUCCEEDED, Status.CANCELLED)
    failed = event.kind is EventKind.FINISHED and event.status is Status.FAILED
    return replace(event, message=f"{event.message} ({where})") if where and (ended or failed) else event


class Deadline:
    """The time at which a worker must be stopped: `timeout` seconds per trial in flight, since the last one started."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._in_flight: set[str] = set()
        self.at = self._from_now()

    def observe(self, event: Event) -> None:
        """Restart the countdown when the worker begins to load its model, has loaded it, and when a trial starts."""
        if event.kind is EventKind.STARTED:
            self._in_flight.add(event.trial)
        elif event.kind is EventKind.FINISHED:
            self._in_flight.discard(event.trial)
        if event.kind in (EventKind.LOADING, EventKind.LOADED, EventKind.STARTED):
            self.at = self._from_now()

    @property
    def left(self) -> float:
        """Seconds until the deadline; infinite without a timeout."""
        return self.at - time.monotonic()

    def _from_now(self) -> float:
        return time.monotonic() + self._timeout * max(1, len(self._in_flight)) if self._timeout else math.inf
