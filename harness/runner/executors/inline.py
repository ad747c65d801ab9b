"""Executor that runs a job in this process, for tests and for debugging a worker step by step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from harness.core.job import Event, EventKind, Job
from harness.core.training_outcome import Status
from harness.runner.executors.protocol import ONLY, Deadline, Executor, Place
from harness.storage.records import read_record

Work = Callable[[Job, Callable[[Event], None]], object]
"""The signature of `harness.engine.worker.work`; tests pass a fake."""


class _TrialTimeoutError(Exception):
    """A trial exceeded its time limit."""


class _CancelledError(Exception):
    """The whole run exceeded its time limit, or is being stopped; the message says which."""


@dataclass(frozen=True)
class Inline(Executor):
    """Calls `work` with the job. Time limits are checked at each event. The events are yielded after `work` returns."""

    work: Work
    at: tuple[Place, ...] = (ONLY,)

    @property
    def places(self) -> tuple[Place, ...]:
        """The places that the caller named."""
        return self.at

    def run(
        self,
        job: Path,
        log: Path,
        *,
        timeout: float | None,
        until: float | None = None,
        place: Place = ONLY,  # noqa: ARG002 - work in this process has no place of its own
        stop: threading.Event | None = None,
    ) -> Generator[Event]:
        """Run the job, as `Executor.run` describes."""
        events: list[Event] = []
        deadline = Deadline(timeout)

        def emit(event: Event) -> None:
            if until is not None and time.monotonic() > until:
                raise _CancelledError("stopped: the time for all trials is up")
            if stop is not None and stop.is_set():
                raise _CancelledError("stopped")
            if deadline.left < 0:
                raise _TrialTimeoutError
            deadline.observe(event)
            if event.kind is not EventKind.ENDED:  # `run` yields ENDED itself
                events.append(event)

        try:
            self.work(read_record(job, Job), emit)
            status, message = Status.SUCCEEDED, ""
        except _TrialTimeoutError:
            status, message = Status.TIMED_OUT, f"stopped after {timeout:g} s"
        except _CancelledError as error:
            status, message = Status.CANCELLED, str(error)
        except MemoryError as error:
            status, message = Status.OUT_OF_MEMORY, str(error)
        except Exception as error:  # noqa: BLE001 - an error in a worker must not stop the sweep
            status, message = Status.FAILED, f"{type(error).__name__}: {error}"
        log.write_text(message + "\n", encoding="utf-8")
        yield from events
        yield Event(EventKind.ENDED, status=status, message=message)
