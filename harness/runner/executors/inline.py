"""Runs a job in this process: for tests, and for stepping through a worker in a debugger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.core.job import Event, EventKind, Job
from harness.core.training import Status
from harness.runner.executors import Deadline
from harness.storage.records import read_record

Work = Callable[[Job, Callable[[Event], None]], object]
"""`harness.engine.worker.work`, or a fake of it."""


class _TimeIsUpError(Exception):
    """A trial took too long. `_AllTimeIsUpError`: the whole run did."""


class _AllTimeIsUpError(Exception):
    pass


@dataclass(frozen=True)
class Inline:
    """Calls `work`. It can be stopped only when it emits an event; its events are yielded after it returns."""

    work: Work

    def run(self, job: Path, log: Path, *, timeout: float | None, until: float | None = None) -> Iterator[Event]:
        events: list[Event] = []
        deadline = Deadline(timeout)

        def emit(event: Event) -> None:
            if until is not None and time.monotonic() > until:
                raise _AllTimeIsUpError
            if deadline.left < 0:
                raise _TimeIsUpError
            deadline.observe(event)
            if event.kind is not EventKind.ENDED:  # this function yields it
                events.append(event)

        try:
            self.work(read_record(job, Job), emit)
            status, message = Status.SUCCEEDED, ""
        except _TimeIsUpError:
            status, message = Status.TIMED_OUT, f"stopped after {timeout:g} s"
        except _AllTimeIsUpError:
            status, message = Status.CANCELLED, "stopped: the time for all trials is up"
        except MemoryError as error:
            status, message = Status.OUT_OF_MEMORY, str(error)
        except Exception as error:  # noqa: BLE001 - a worker process would die of it, the sweep must not
            status, message = Status.FAILED, f"{type(error).__name__}: {error}"
        log.write_text(message + "\n", encoding="utf-8")
        yield from events
        yield Event(EventKind.ENDED, status=status, message=message)
