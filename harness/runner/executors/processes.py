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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from harness.core import programs
from harness.core.job import OTHER_BASE, STAY, Event, EventKind, Instruction
from harness.core.training_outcome import Status
from harness.hardware import environment
from harness.hardware.gpu import Gpu
from harness.runner.executors.protocol import ONLY, Deadline, Executor, Place
from harness.runner.places import cpu_places
from harness.storage.files import writing
from harness.storage.records import decode_line, encode_line

WORKER = programs.module("harness.engine.worker")
_LOG_TAIL = 2000
_POLL_INTERVAL = 0.5
"""Seconds between two checks whether a worker that prints nothing is still running."""


@dataclass(frozen=True)
class Processes(Executor):
    """Starts `command JOB --stay` in a child process. `show` is called with new text of the worker's log.

    A worker that has done its job is kept for the next job of its place, which can then use the loaded base model. It
    is kept until `close`, so that the confirmation has the worker of the grid.
    """

    show: Callable[[str], None] | None = None
    command: Sequence[str] = WORKER
    at: tuple[Place, ...] = (ONLY,)
    divisible: bool = False
    """Whether the number of workers is still to be chosen."""
    _kept: dict[str, _Child] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Workers without a job, by the names of their places. Each place has a thread of its own."""
    _busy: dict[str, _Child] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Workers with a job, by the names of their places."""
    _sharing: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _starting: ThreadPoolExecutor = field(
        default_factory=partial(ThreadPoolExecutor, 1), init=False, repr=False, compare=False
    )
    """The thread that starts workers. The kernel ends a worker with the thread that started it, and those of places end
    before the next job comes."""
    keeps_workers = True

    @property
    def places(self) -> tuple[Place, ...]:
        """The places that the caller named, such as the GPUs of this machine."""
        return self.at

    def gpu(self) -> Gpu | None:
        """Return the GPU of the first place."""
        return self.at[0].gpu()

    def divided(self, workers: int) -> Executor:
        """Return an executor with this many workers on the CPU, if the user has not chosen their number."""
        return replace(self, at=cpu_places(workers), divisible=False) if self.divisible else self

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
        """Run the job in the place's waiting worker or in a new one, as `Executor.run` describes."""
        kills = _out_of_memory_kills()
        limits = _Limits(timeout, math.inf if until is None else until, stop or threading.Event())
        with writing(log):
            log.open("wb").close()
        child, keep = self._reuse(job, log, place) or self._start(job, log, place), False
        self._share(place, child)
        try:
            with _follow_log(log, self.show):
                ended = yield from _events(child, limits)
                if ended is None and child.process.wait() == OTHER_BASE:
                    child.end()
                    child = self._start(job, log, place)
                    self._share(place, child)
                    ended = yield from _events(child, limits)
                keep = ended is not None and ended.status is Status.SUCCEEDED
                if ended is not None and not keep:
                    _kill(child.process)
                code = 0 if keep else child.process.wait()
            yield ended or _ended(code, log, _out_of_memory_kills() > kills)
        finally:
            self._share(place, None)
            if keep:
                self._kept[place.name] = child
            else:
                child.end()

    def close(self) -> None:
        """End the workers that wait for another job, so that their memory is free."""
        while self._kept:
            self._kept.popitem()[1].end()

    def _share(self, place: Place, child: _Child | None) -> None:
        """Note which worker has a job in this place, if any, and divide the cores among the workers with jobs."""
        if not place.threads:
            return
        with self._sharing:
            self._busy.pop(place.name, None)
            if child:
                self._busy[place.name] = child
            threads = environment.cores() // max(1, len(self._busy))
            for each in self._busy.values():
                with contextlib.suppress(OSError, ValueError):  # the worker has ended, which `_events` finds out
                    each.give(Instruction(threads=max(1, threads)))

    def _reuse(self, job: Path, log: Path, place: Place) -> _Child | None:
        """Give the job to the place's waiting worker; return None if there is none or it has ended."""
        child = self._kept.pop(place.name, None)
        if child is None:
            return None
        with contextlib.suppress(OSError):
            if child.process.poll() is None:
                child.give(Instruction(str(job), str(log)))
                return child
        child.end()
        return None

    def _start(self, job: Path, log: Path, place: Place) -> _Child:
        with writing(log), log.open("ab") as file:
            process = self._starting.submit(
                programs.start,
                [*self.command, str(job), STAY],
                stdin=subprocess.PIPE,  # stays open: a worker exits when its parent closes it or dies
                stdout=subprocess.PIPE,
                stderr=file,
                changes={**_environment(), **place.variables},
                start_new_session=True,  # so that Ctrl-C reaches only the parent, which then stops the worker
            ).result()
        return _Child(process)


class _Child:
    """A worker process, and the lines that it has printed and nobody has read yet."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        """None follows the last line."""
        threading.Thread(target=_read_lines, args=(process.stdout, self.lines), daemon=True).start()

    def give(self, instruction: Instruction) -> None:
        """Send the worker a further job, if it has none, or another number of threads.

        Raises:
            OSError: the worker has ended.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(encode_line(instruction).encode() + b"\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Kill the worker and its child processes."""
        _kill(self.process)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(OSError):  # what was written to the worker cannot be flushed any more
                    stream.close()


@dataclass(frozen=True)
class _Limits:
    """When a worker is stopped: `timeout` seconds per trial, at the time `until`, or when `stop` is set."""

    timeout: float | None
    until: float
    stop: threading.Event


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """Kill the worker and its child processes, so that none of them keeps memory or the GPU."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _environment() -> dict[str, str]:
    """Return the environment variables with which the worker makes no network requests and shares a busy CPU.

    With these, products of matrices on a CPU are the same bit for bit with any number of threads.
    """
    # By default OpenMP threads spin while they wait, which on a busy CPU takes ten times longer than the work itself.
    # By default MKL divides the sums of a product among the threads, whose number is that of a worker's cores.
    chosen = {"OMP_WAIT_POLICY": "PASSIVE", "MKL_CBWR": "AVX2,STRICT"}
    given = {name: os.environ.get(name, default) for name, default in chosen.items()}
    return {**given, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


def _events(child: _Child, limits: _Limits) -> Generator[Event, None, Event | None]:
    """Yield the worker's events. Returns ENDED for a job that is done or was stopped, None if the worker exits."""
    deadline = Deadline(limits.timeout)
    while (left := min(deadline.at, limits.until) - time.monotonic()) > 0:
        if limits.stop.is_set():
            return _stopped(limits, deadline.at)
        try:
            line = child.lines.get(timeout=min(left, _POLL_INTERVAL))
        except queue.Empty:
            # A child process of a dead worker may keep the worker's stdout open.
            if child.process.poll() is not None:
                return None
            continue
        if line is None:
            return _stopped(limits, deadline.at) if _still_running(child.process, limits, deadline.at) else None
        try:
            event = decode_line(line.decode(), Event)
        except (UnicodeDecodeError, ValidationError):
            continue  # a killed worker may leave an incomplete line
        if event.kind is EventKind.DONE:
            return Event(EventKind.ENDED, status=Status.SUCCEEDED)
        if event.kind is EventKind.ENDED:
            continue  # the executor itself determines how the worker ended
        deadline.observe(event)
        yield event
    return _stopped(limits, deadline.at)


def _stopped(limits: _Limits, deadline: float) -> Event:
    """The ENDED event of a stopped worker: TIMED_OUT for a trial's time limit, else CANCELLED."""
    if limits.stop.is_set():
        return Event(EventKind.ENDED, status=Status.CANCELLED, message="stopped")
    if limits.until <= deadline:
        return Event(EventKind.ENDED, status=Status.CANCELLED, message="stopped: the time for all trials is up")
    return Event(EventKind.ENDED, status=Status.TIMED_OUT, message=f"stopped after {limits.timeout:g} s")


def _still_running(worker: subprocess.Popen[bytes], limits: _Limits, deadline: float) -> bool:
    """Wait for a worker that has closed its output, and return whether it is still running when it must be stopped."""
    while (left := min(deadline, limits.until) - time.monotonic()) > 0 and not limits.stop.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(min(left, _POLL_INTERVAL))
            return False
    return True


def _read_lines(stream: IO[bytes] | None, lines: queue.Queue[bytes | None]) -> None:
    with contextlib.suppress(ValueError, OSError):  # the main thread closed the stream
        for line in stream or ():
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
