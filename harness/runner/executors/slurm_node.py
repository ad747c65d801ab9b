"""What runs on a node of a Slurm cluster: the function of a Slurm job, which starts the worker as a process.

submitit stores the function in a folder that all nodes share, and calls it on a node. The function writes the worker's
events to a file in a shared folder, which the driver follows. Only this file decides what is finished: Slurm may stop a
job and start it again at any time (preemption, the job's time limit, `scontrol requeue`, a dead node), and the function
then goes on with what is left.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.core import programs
from harness.core.errors import HarnessError
from harness.core.job import Event, EventKind, Job, Task
from harness.core.training_outcome import Status
from harness.core.units import DeviceKind
from harness.runner.executors.node_facts import NodeFacts, check_gpus, check_versions, node_facts
from harness.runner.executors.processes import Processes
from harness.runner.jobs import unfinished
from harness.storage.files import write_text
from harness.storage.records import decode_line, encode_line, read_record, write_record

_INTERRUPTION = 1.0
"""Seconds after the end of a worker in which a signal that Slurm sent to the whole job reaches this process, too."""
_KILL_WAIT = 3600.0
"""Seconds in which Slurm kills a job after it has sent SIGTERM. A grace time before a preemption may be long."""
_POLL_INTERVAL = 0.5


@dataclass
class EventFile:
    """A file of events, one JSON object per line. It can be read while another node appends to it."""

    path: Path
    _read: int = field(default=0, init=False)
    """Number of bytes that have been read."""

    def add(self, event: Event) -> None:
        """Append an event. Closing the file sends it to the server of a network file system."""
        with self.path.open("ab", buffering=0) as file:
            file.write(encode_line(event).encode() + b"\n")

    def begin(self) -> None:
        """End a line that a killed process may have left incomplete."""
        with self.path.open("ab", buffering=0) as file:
            file.write(b"\n")

    def new(self) -> Iterator[Event]:
        """Yield the events that were added since the last call. An incomplete line is left for the next call."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            lines, _, _ = file.read().rpartition(b"\n")
        if lines:
            self._read += len(lines) + 1
        for line in lines.splitlines():
            try:
                yield decode_line(line.decode(), Event)
            except (UnicodeDecodeError, ValidationError):
                continue

    def is_over(self) -> bool:
        """Whether the job has ended, or the driver has stopped it. Reads the file from its beginning."""
        return any(event.kind in (EventKind.ENDED, EventKind.REFUSED) for event in EventFile(self.path).new())


@dataclass(frozen=True)
class Facts:
    """The function of a Slurm job that writes the facts of its node to a file."""

    path: str

    def __call__(self) -> None:
        write_text(Path(self.path), encode_line(node_facts()))

    def checkpoint(self) -> Any:
        """Return what runs if Slurm starts the job again."""
        return _submission(self)


@dataclass(frozen=True)
class Pass:
    """The function of a Slurm job that runs the job in the file `job` and writes its events to the file `events`.

    The `place` of each event is the node. If the worker is killed because Slurm stops the whole job, the function
    writes no end of the job.
    """

    job: str
    log: str
    events: str
    timeout: float | None
    facts: NodeFacts
    """The facts of the node on which the driver bases its plan."""
    module: str
    """The Python module that works."""

    def __call__(self) -> None:
        events, stopping = EventFile(Path(self.events)), _Stopping()
        before = list(EventFile(events.path).new())
        if events.is_over():
            return
        events.begin()
        try:
            self._check()
            for event in self._work(before):
                if event.kind is EventKind.ENDED and event.status is not Status.SUCCEEDED and stopping.is_near():
                    _wait_for_the_end(events)
                    return
                events.add(replace(event, place=node_name()))
        except HarnessError as error:
            events.add(Event(EventKind.REFUSED, message=str(error), place=node_name()))
        except Exception as error:
            if stopping.is_near():  # such as the death of the `scontrol requeue` that submitit runs in this job
                _wait_for_the_end(events)
                return
            status = Status.TIMED_OUT if _is_out_of_time(error) else Status.FAILED
            message = f"{type(error).__name__}: {error}"
            events.add(Event(EventKind.ENDED, status=status, message=message, place=node_name()))
            raise  # into the log of the Slurm job

    def checkpoint(self) -> Any:
        """Return what runs if Slurm starts the job again."""
        return _submission(self)

    def _check(self) -> None:
        """Check that this node has the versions and the GPU that the driver counts on.

        Raises:
            UsageError: it has others.
        """
        here, node = node_facts(), node_name()
        check_versions("slurm", self.facts.versions, {node: here.versions})
        if read_record(Path(self.job), Job).machine.kind is DeviceKind.CUDA:
            check_gpus("slurm", {"the first node": self.facts.found, node: here.found})

    def _work(self, before: Sequence[Event]) -> Iterator[Event]:
        """Run the job, or what is left of it, and yield its events."""
        path: Path | None = Path(self.job)
        if before:
            message = f"Slurm started a job again, on node {node_name()}: what it had finished is kept"
            yield Event(EventKind.NOTICED, message=message)
            path = yield from self._left(before)
        if path is None:
            yield Event(EventKind.ENDED, status=Status.SUCCEEDED)
            return
        executor = Processes(command=programs.module(self.module))
        try:
            yield from executor.run(path, Path(self.log), timeout=self.timeout)
        finally:
            executor.close()

    def _left(self, before: Sequence[Event]) -> Generator[Event, None, Path | None]:
        """Yield the ends of trials whose results are in the cache; return the path of a job with the others, if any."""
        path = Path(self.job)
        finished = {event.trial for event in before if event.kind is EventKind.FINISHED and event.trial}
        job = unfinished(read_record(path, Job), finished)
        left = tuple(task for task in job.tasks if task.train or _asks(task))
        for task in job.tasks:
            if task not in left:
                yield Event(EventKind.FINISHED, task.trial, Status.SUCCEEDED)
        if not left:
            return None
        rest = path.with_suffix(".left.json")
        write_record(rest, replace(job, tasks=left))
        return rest


def node_name() -> str:
    """Return the name of this node."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _asks(task: Task) -> bool:
    return bool(task.prompts or any(each.prompts for each in task.timeline))


def _submission(function: Any) -> Any:
    from submitit.helpers import DelayedSubmission

    return DelayedSubmission(function)


def _is_out_of_time(error: Exception) -> bool:
    """Whether submitit raised an error because the time limit of the Slurm job ended too often."""
    return type(error).__name__ == "UncompletedJobError"


class _Stopping:
    """Notices SIGTERM, which Slurm sends to all processes of a job that it stops."""

    def __init__(self) -> None:
        self._told = False
        if threading.current_thread() is threading.main_thread():  # else there is no Slurm: a test calls the function
            signal.signal(signal.SIGTERM, self._notice)

    def _notice(self, *_: object) -> None:
        self._told = True

    def is_near(self) -> bool:
        """Whether Slurm is stopping the job. A worker that is killed may be told a moment before this process."""
        until = time.monotonic() + _INTERRUPTION
        while not self._told and time.monotonic() < until:
            time.sleep(_POLL_INTERVAL / 10)
        return self._told


def _wait_for_the_end(events: EventFile) -> None:
    """Wait until Slurm kills this process, or the driver has stopped the job."""
    until = time.monotonic() + _KILL_WAIT
    while time.monotonic() < until and not events.is_over():
        time.sleep(_POLL_INTERVAL)
