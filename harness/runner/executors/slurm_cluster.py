"""Executor that runs jobs on a Slurm cluster, through submitit. All nodes share the folders of the run and the cache.

Jobs that wait at the same time are submitted together, as one array. What a job has done is known from a file of
events that its function writes (`slurm_node`). Slurm is asked only whether a job still exists, with `squeue`, because
many clusters keep no accounts of ended jobs.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from harness.core import programs
from harness.core.device_profiles import Profile
from harness.core.errors import UsageError
from harness.core.job import Event, EventKind
from harness.core.training_outcome import Status
from harness.core.units import DeviceKind
from harness.hardware.gpu import Gpu
from harness.runner.executors.node_facts import NodeFacts, first_line, node_facts
from harness.runner.executors.node_jobs import WORKER
from harness.runner.executors.protocol import ONLY, Executor, Place, located
from harness.runner.executors.slurm_node import EventFile, Facts, Pass
from harness.runner.executors.slurm_options import SlurmOptions
from harness.storage.files import writing
from harness.storage.locations import CACHE
from harness.storage.records import decode_line

_INSTALL = "In a checkout of the harness in a folder that all nodes share, run: pip install '.[slurm]'"
_POLL_INTERVAL = 0.5
"""Seconds between two looks at a job's events."""
_GATHERING = 1.0
"""Seconds in which jobs are gathered for one array."""
_QUEUE_INTERVAL = 10.0
"""Seconds between two questions to Slurm about all jobs."""
_NAME = "harness"
"""Name of all jobs."""
_TIMEOUTS = 3
"""How often Slurm may end a job at its time limit and start it again."""
_SECONDS = 60.0
"""Longest time for an answer of Slurm."""

Function = Callable[[], None]


class Submitted(Protocol):
    """A job as submitit describes it: its id, and the paths of its files."""

    job_id: str
    paths: Any


class Queue(Protocol):
    """What runs functions on nodes: Slurm, or a stand-in for tests."""

    def submit(self, folder: Path, functions: Sequence[Function]) -> Sequence[Submitted]:
        """Submit functions, several as one array. submitit stores its files in the folder."""

    def exists(self, job: Submitted) -> bool:
        """Whether a job waits or runs, as far as it is known."""

    def cancel(self, job: Submitted) -> None:
        """Stop a job, or remove it from the queue."""

    def cancel_left(self, folder: Path) -> None:
        """Stop the jobs of an earlier driver with files in this folder, and wait until they have ended."""


@dataclass(frozen=True)
class SlurmCluster(Executor):
    """Runs jobs on a Slurm cluster."""

    profile: Profile
    options: SlurmOptions
    queue: Queue
    module: str = WORKER
    """The Python module that works on a node."""
    _submitting: _Gathered = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_submitting", _Gathered(self.queue))

    @property
    def places(self) -> tuple[Place, ...]:
        """One place for each job that may wait or run at the same time."""
        count, threads = self.options.most_jobs, self.options.cores
        return tuple(Place("" if count == 1 else f"job {number}", threads=threads) for number in range(1, count + 1))

    def gpu(self) -> Gpu | None:
        """Return the GPU of a node, which a job of its own finds. With `--profile cpu`, no node is asked.

        Raises:
            UsageError: the job found none, although the profile or an option requires one.
        """
        found = self._facts.found
        required = self.profile.kind is DeviceKind.CUDA or self.options.requests_gpu
        if found is None and required and self.profile.kind is not DeviceKind.CPU:
            remedy = "Request one, such as with --slurm-gres=gpu:1, on nodes that have GPUs; or pass --profile cpu."
            raise UsageError("--executor slurm: the first Slurm job sees no GPU on its node", remedy=remedy)
        return found

    def run(
        self,
        job: Path,
        log: Path,
        *,
        timeout: float | None,
        until: float | None = None,
        place: Place = ONLY,  # noqa: ARG002 - Slurm chooses the node
        stop: threading.Event | None = None,
    ) -> Generator[Event]:
        """Run the job as a Slurm job, as `Executor.run` describes. The time in Slurm's queue counts for `until`."""
        folder, events = job.parent / "slurm", EventFile(job.with_suffix(".events").resolve())
        self._submitting.prepare(folder)
        with writing(events.path):
            for path in (events.path, log):
                path.write_bytes(b"")
        function = Pass(str(job.resolve()), str(log.resolve()), str(events.path), timeout, self._facts, self.module)
        submitted, over = self._submitting.submit(folder, function), False
        try:
            for event in self._events(submitted, events, until, stop or threading.Event()):
                over = event.kind in (EventKind.ENDED, EventKind.REFUSED)
                yield event
        finally:
            if not (over and events.is_over()):
                # The function reads that it is to end, even if Slurm starts the job again in the meantime.
                events.add(Event(EventKind.ENDED, status=Status.CANCELLED))
                self.queue.cancel(submitted)

    def _events(
        self, job: Submitted, events: EventFile, until: float | None, stop: threading.Event
    ) -> Generator[Event]:
        node = ""
        while not stop.is_set():
            left = until is None or time.monotonic() < until
            exists = self.queue.exists(job)
            for event in events.new():
                node = event.place or node
                yield replace(located(event, _where(job, node)), place="")
                if event.kind in (EventKind.ENDED, EventKind.REFUSED):
                    return
            if not left:
                yield Event(EventKind.ENDED, status=Status.CANCELLED, message="stopped: the time for all trials is up")
                return
            if not exists:
                message = "a Slurm job ended without a result"
                yield located(
                    Event(EventKind.ENDED, status=Status.FAILED, message=message, lost=True), _where(job, node)
                )
                return
            stop.wait(_POLL_INTERVAL)
        yield Event(EventKind.ENDED, status=Status.CANCELLED, message="stopped")

    @cached_property
    def _facts(self) -> NodeFacts:
        """The facts of a node.

        Raises:
            UsageError: the job that finds them ended without a result.
        """
        if self.profile.kind is DeviceKind.CPU:
            return node_facts()
        folder = (CACHE / "slurm").resolve()
        path = folder / f"{uuid.uuid4().hex}.facts"
        job = self._submitting.submit(folder, Facts(str(path)))
        try:
            while not path.is_file():
                if not self.queue.exists(job) and not path.is_file():
                    what = f"the first Slurm job ended without a result ({_where(job, '')})"
                    raise UsageError(f"--executor slurm: {what}", remedy=f"Read its log. {_INSTALL}")
                time.sleep(_POLL_INTERVAL)
            return decode_line(path.read_text(encoding="utf-8"), NodeFacts)
        except KeyboardInterrupt:
            self.queue.cancel(job)
            raise
        finally:
            path.unlink(missing_ok=True)


def _where(job: Submitted, node: str) -> str:
    """Say on which node a job ran, and where its log is."""
    return f"{f'node {node}, ' if node else ''}Slurm job {job.job_id}, its log: {job.paths.stderr}"


class _Gathered:
    """Submits the jobs together that several threads submit at the same time."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._lock = queue, threading.Lock()
        self._waiting: dict[Path, list[tuple[Function, Future[Submitted]]]] = {}
        self._seen: set[Path] = set()

    def prepare(self, folder: Path) -> None:
        """Stop the jobs of an earlier driver, before the first job of this one has files."""
        with self._lock:
            if folder not in self._seen:
                self._queue.cancel_left(folder)
                self._seen.add(folder)

    def submit(self, folder: Path, function: Function) -> Submitted:
        """Submit a function. The first thread that submits one waits for others, and submits all of them."""
        done = Future[Submitted]()
        with self._lock:
            others = self._waiting.setdefault(folder, [])
            others.append((function, done))
            first = len(others) == 1
        if first:
            time.sleep(_GATHERING)
            with self._lock:
                self._submit(folder, self._waiting.pop(folder))
        return done.result()

    def _submit(self, folder: Path, given: Sequence[tuple[Function, Future[Submitted]]]) -> None:
        try:
            submitted = self._queue.submit(folder, [function for function, _ in given])
        except BaseException as error:  # noqa: BLE001 - each thread raises it
            for _, done in given:
                done.set_exception(error)
            return
        for (_, done), job in zip(given, submitted, strict=True):
            done.set_result(job)


# --- Slurm -----------------------------------------------------------------------------------------------------------


@dataclass
class Slurm:
    """Slurm's queue: `sbatch` through submitit, `squeue` and `scancel`."""

    options: SlurmOptions
    _ids: frozenset[str] | None = None
    """The jobs that existed when Slurm was asked; None: it did not answer."""
    _asked: float = -1e9
    _submitted: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, folder: Path, functions: Sequence[Function]) -> Sequence[Submitted]:
        """Submit functions.

        Raises:
            UsageError: submitit or Slurm is not installed, or Slurm refuses the jobs.
        """
        given = self.options
        for name in ("sbatch", "srun"):
            _program(name)
        try:
            from submitit import SlurmExecutor
        except ImportError:
            raise UsageError("--executor slurm: submitit is not installed", remedy=_INSTALL) from None
        package = programs.environment()["PYTHONPATH"]
        made = SlurmExecutor(folder, max_num_timeout=_TIMEOUTS, python=shlex.join(programs.python()))
        made.update_parameters(
            job_name=_NAME,
            time=given.minutes,
            array_parallelism=given.most_jobs,
            setup=[f"export PYTHONPATH={shlex.quote(package)}", *_cores_of_srun(given)],
            additional_parameters={**given.sbatch, "requeue": True},
        )
        try:
            jobs: Sequence[Submitted] = made.submit_array(functions)
        except Exception as error:  # submitit passes on what sbatch prints, as an exception of its own
            remedy = "Correct the options that begin with --slurm-."
            raise UsageError(f"--executor slurm: {first_line(error)}", remedy=remedy) from error
        self._submitted.update({job.job_id: time.monotonic() for job in jobs})
        return jobs

    def exists(self, job: Submitted) -> bool:
        """Whether Slurm had this job when it was last asked. A job that was submitted since exists."""
        with self._lock:
            if time.monotonic() - self._asked > _QUEUE_INTERVAL:
                self._asked, self._ids = time.monotonic(), self._ask()
            is_new = self._asked < self._submitted.get(job.job_id, 0.0) + _QUEUE_INTERVAL
            return self._ids is None or is_new or job.job_id in self._ids

    def cancel(self, job: Submitted) -> None:
        """Stop a job, or remove it from the queue."""
        _run("scancel", job.job_id)

    def cancel_left(self, folder: Path) -> None:
        """Stop the jobs of an earlier driver, and wait until they have ended."""
        known = {path.name.removesuffix("_submitted.pkl") for path in folder.glob("*_submitted.pkl")}
        while left := sorted(known & (self._ask() or frozenset())):
            for events in folder.parent.glob("*.events"):
                _end(EventFile(events))
            _run("scancel", *left)
            time.sleep(_POLL_INTERVAL)

    def _ask(self) -> frozenset[str] | None:
        """Return the ids of this user's jobs that wait or run; None if Slurm does not answer."""
        done = _run("squeue", "--noheader", "--array", f"--user={os.getuid()}", f"--name={_NAME}", "--format=%i")
        return None if done is None or done.returncode else frozenset(done.stdout.split())


def _cores_of_srun(given: SlurmOptions) -> list[str]:
    """Return the line of a job script that passes --cpus-per-task to srun, which since Slurm 22.05 does not read it."""
    return [f"export SRUN_CPUS_PER_TASK={given.cores}"] if "cpus-per-task" in given.sbatch else []


def _end(events: EventFile) -> None:
    if not events.is_over():
        events.add(Event(EventKind.ENDED, status=Status.CANCELLED))


def _run(program: str, *words: str) -> subprocess.CompletedProcess[str] | None:
    with suppress(OSError, subprocess.TimeoutExpired):
        return programs.run((_program(program), *words), seconds=_SECONDS)
    return None


def _program(name: str) -> str:
    """Return the path of one of Slurm's programs.

    Raises:
        UsageError: it is not on PATH, or another program of that name comes first in a relative folder on PATH.
    """
    found = programs.which(name)
    if found is None:
        raise UsageError(
            f"--executor slurm: there is no program {name}", remedy="Run it on a login node of the cluster."
        )
    if shutil.which(name) != found:  # submitit starts the first one
        raise UsageError(f"PATH has a relative folder with a program {name}", remedy="Remove that folder from PATH.")
    return found
