"""Executor that runs a job in a child process, `python -m harness.engine.worker`, so that a crash ends only the job."""

from __future__ import annotations

import codecs
import contextlib
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from harness.core import programs
from harness.core.job import Event, EventKind
from harness.core.training_outcome import Status
from harness.runner.executors.protocol import Deadline
from harness.storage.files import writing
from harness.storage.records import decode_line

WORKER = programs.python("-m", "harness.engine.worker")
_LOG_TAIL = 2000
_POLL_INTERVAL = 0.5
"""Seconds between two checks whether a worker that prints nothing is still running."""


@dataclass(frozen=True)
class Processes:
    """Starts `command JOB` in a child process. `show` is called with new text of the worker's log."""

    show: Callable[[str], None] | None = None
    command: Sequence[str] = WORKER

    def run(self, job: Path, log: Path, *, timeout: float | None, until: float | None = None) -> Iterator[Event]:
        kills = _out_of_memory_kills()
        with writing(log), log.open("wb") as file:
            worker = programs.start(
                [*self.command, str(job)],
                stdin=subprocess.PIPE,  # stays open: a worker exits when its parent closes it or dies
                stdout=subprocess.PIPE,
                stderr=file,
                changes=_environment(),
                start_new_session=True,  # so that Ctrl-C reaches only the parent, which then stops the worker
            )
        try:
            with _follow_log(log, self.show):
                stopped = yield from _events(worker, timeout, math.inf if until is None else until)
                if stopped:
                    _kill(worker)
                code = worker.wait()
            yield stopped or _ended(code, log, _out_of_memory_kills() > kills)
        finally:
            _kill(worker)
            for stream in (worker.stdin, worker.stdout):
                if stream:
                    stream.close()


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """Kill the worker and its child processes, so that none of them keeps memory or the GPU."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _environment() -> dict[str, str]:
    """Return the environment variables with which the worker makes no network requests and shares a busy CPU."""
    # By default OpenMP threads spin while they wait, which on a busy CPU takes ten times longer than the work itself.
    waiting = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    return {**waiting, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


def _events(
    worker: subprocess.Popen[bytes], timeout: float | None, until: float
) -> Generator[Event, None, Event | None]:
    """Yield the worker's events until it exits. Returns an ENDED event if a time limit is reached first, else None."""
    lines: queue.Queue[bytes | None] = queue.Queue()
    assert worker.stdout is not None
    threading.Thread(target=_read_lines, args=(worker.stdout, lines), daemon=True).start()
    deadline = Deadline(timeout)
    while (left := min(deadline.at, until) - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=min(left, _POLL_INTERVAL))
        except queue.Empty:
            # A child process of a dead worker may keep the worker's stdout open.
            if worker.poll() is not None:
                return None
            continue
        if line is None:
            return _stopped(timeout, deadline.at, until) if _still_running_at(worker, min(deadline.at, until)) else None
        try:
            event = decode_line(line.decode(), Event)
        except (UnicodeDecodeError, ValidationError):
            continue  # a killed worker may leave an incomplete line
        if event.kind is EventKind.ENDED:
            continue  # the executor itself determines how the worker ended
        deadline.observe(event)
        yield event
    return _stopped(timeout, deadline.at, until)


def _stopped(timeout: float | None, deadline: float, until: float) -> Event:
    """The ENDED event after a time limit: TIMED_OUT for a trial's limit, CANCELLED for the limit of the whole run."""
    if until <= deadline:
        return Event(EventKind.ENDED, status=Status.CANCELLED, message="stopped: the time for all trials is up")
    return Event(EventKind.ENDED, status=Status.TIMED_OUT, message=f"stopped after {timeout:g} s")


def _still_running_at(worker: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for a worker that has closed its output, and return whether it is still running at the deadline."""
    try:
        worker.wait(None if deadline == math.inf else max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return True
    return False


def _read_lines(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    with contextlib.suppress(ValueError, OSError):  # the main thread closed the stream
        for line in stream:
            lines.put(line)
    lines.put(None)


def _ended(code: int, log: Path, memory_killed: bool) -> Event:
    if code == 0:
        return Event(EventKind.ENDED, status=Status.SUCCEEDED)
    if code == -signal.SIGKILL and memory_killed:
        message = "the system ran out of memory and killed the worker"
        return Event(EventKind.ENDED, status=Status.OUT_OF_MEMORY, message=message)
    how = f"was killed by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"
    return Event(EventKind.ENDED, status=Status.FAILED, message=f"the worker {how}{_last_line(log)}")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip().splitlines()
        if lines:
            return f"; the last line of its log: {lines[-1].strip()}"
    return ""


def _out_of_memory_kills() -> int:
    """Number of processes that the kernel or a container's memory limit has killed because memory ran out."""
    found = 0
    for path in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with contextlib.suppress(OSError):
            lines = Path(path).read_text(encoding="ascii").splitlines()
            found += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return found


@contextlib.contextmanager
def _follow_log(log: Path, show: Callable[[str], None] | None) -> Iterator[None]:
    """Call `show` with new text of the log while the block runs."""
    if show is None:
        yield
        return
    done = threading.Event()

    def follow() -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may end in the middle of a character
        with log.open("rb") as file:
            ending = False
            while not ending:
                ending = done.wait(0.2)
                text = decoder.decode(file.read(), final=ending)
                if text:
                    show(text)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
