"""Runs a job in its own process, `python -m harness.engine.worker`, so that the sweep survives its death."""

from __future__ import annotations

import codecs
import contextlib
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from harness.core.job import Event, EventKind
from harness.core.training import Status
from harness.runner.executors import Deadline
from harness.storage.files import writing
from harness.storage.records import decode_line

WORKER = (sys.executable, "-P", "-m", "harness.engine.worker")
_TAIL = 2000
_LOOK = 0.5
"""Seconds between two checks whether a silent worker is still running."""


@dataclass(frozen=True)
class Processes:
    """Starts `command JOB`. `show` is called with new text of the log."""

    show: Callable[[str], None] | None = None
    command: Sequence[str] = WORKER

    def run(self, job: Path, log: Path, *, timeout: float | None, until: float | None = None) -> Iterator[Event]:
        kills = _out_of_memory_kills()
        with writing(log), log.open("wb") as file:
            worker = subprocess.Popen(
                [*self.command, str(job)],
                stdin=subprocess.PIPE,  # held open: a worker ends when its parent does
                stdout=subprocess.PIPE,
                stderr=file,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the parent, which stops its workers itself
            )
        try:
            with _followed(log, self.show):
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
    """Kill the worker and its child processes, which would otherwise keep their memory and the GPU's."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _environment() -> dict[str, str]:
    """Environment in which the worker imports this package and makes no network requests."""
    here = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    # OpenMP's threads wait for each other by spinning. On a busy CPU that takes ten times longer than the work itself.
    return {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | quiet | {"PYTHONPATH": path}


def _events(
    worker: subprocess.Popen[bytes], timeout: float | None, until: float
) -> Generator[Event, None, Event | None]:
    """Yield the worker's events until it has ended; return the ENDED event if it must be stopped, else None."""
    lines: queue.Queue[bytes | None] = queue.Queue()
    assert worker.stdout is not None
    threading.Thread(target=_pump, args=(worker.stdout, lines), daemon=True).start()
    deadline = Deadline(timeout)
    while (left := min(deadline.at, until) - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=min(left, _LOOK))
        except queue.Empty:
            # A process that the worker left behind may hold its stdout open.
            if worker.poll() is not None:
                return None
            continue
        if line is None:
            return _stopped(timeout, deadline.at, until) if _lingers(worker, min(deadline.at, until)) else None
        try:
            event = decode_line(line.decode(), Event)
        except (UnicodeDecodeError, ValidationError):
            continue  # half a line of a killed worker
        if event.kind is EventKind.ENDED:
            continue  # only the executor knows how the worker ended
        deadline.observe(event)
        yield event
    return _stopped(timeout, deadline.at, until)


def _stopped(timeout: float | None, deadline: float, until: float) -> Event:
    """The ENDED event for whichever time is up: the trial's or the whole run's."""
    if until <= deadline:
        return Event(EventKind.ENDED, status=Status.CANCELLED, message="stopped: the time for all trials is up")
    return Event(EventKind.ENDED, status=Status.TIMED_OUT, message=f"stopped after {timeout:g} s")


def _lingers(worker: subprocess.Popen[bytes], deadline: float) -> bool:
    """Whether a worker that closed its output is still running when its time is up."""
    try:
        worker.wait(None if deadline == math.inf else max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return True
    return False


def _pump(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    with contextlib.suppress(ValueError, OSError):  # closed by the main thread
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
    except ValueError:  # real-time signals have no names
        return f"signal {number}"


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[-_TAIL:].decode(errors="replace").strip().splitlines()
        if lines:
            return f"; the last line of its log: {lines[-1].strip()}"
    return ""


def _out_of_memory_kills() -> int:
    """Number of processes that the kernel (or a container's memory limit) has killed for lack of memory."""
    found = 0
    for path in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with contextlib.suppress(OSError):
            lines = Path(path).read_text(encoding="ascii").splitlines()
            found += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return found


@contextlib.contextmanager
def _followed(log: Path, show: Callable[[str], None] | None) -> Iterator[None]:
    """Call `show` with new text of the log while the block runs."""
    if show is None:
        yield
        return
    done = threading.Event()

    def follow() -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may end within a character
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
