"""Runs a job on a node that shares no folder with the driver: the job goes out, and results come back in pieces.

A job on a node has a cache of its own, in a temporary folder. Whatever the worker commits there is sent before the
event that announces it, and the driver adds it to its own cache. Quantised base models stay on the node: each job has
hard links to them, because a cache refuses folders that are symbolic links.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil

from harness.core import programs
from harness.core.errors import HarnessError, ModelError
from harness.core.job import Event, EventKind, Job, Task
from harness.core.model import ModelRef
from harness.models.resolving import resolve
from harness.runner.executors.processes import Processes
from harness.runner.executors.protocol import located
from harness.storage.cache import LOADING_LOCK, Cache, state_id
from harness.storage.files import PARTIAL
from harness.storage.records import decode_line, encode_line, read_record, write_record

PIECE = 16 * 2**20
"""Largest number of bytes of a file that are sent at once."""
WORKER = "harness.engine.worker"
_KINDS = ("trainings", "answers")


@dataclass(frozen=True)
class Piece:
    """A part of what a node sends: its name, an event, more of the worker's log, or a part of a file of its cache."""

    node: str = ""
    """The name of the node, which comes first."""
    event: str = ""
    """An event as a line of JSON."""
    log: bytes = b""
    file: str = ""
    """The path of a file in the cache, with `/` between its parts."""
    data: bytes = b""
    """The next bytes of the file."""
    ends: str = ""
    """The key of a training or of answers, if all of their files have been sent."""


@dataclass(frozen=True)
class NodeJob:
    """A job for a node, with its limits and the files of the driver's cache that it needs."""

    job: Job
    files: Mapping[str, Sequence[bytes]]
    """Path in the cache to the file's pieces."""
    timeout: float | None
    left: float | None
    """Seconds until the time of the run is up."""
    module: str = WORKER
    """The Python module that works."""
    find: Callable[[str], ModelRef] = resolve
    """Finds the base model on the node by its name."""


def files_for(job: Job) -> Iterator[Path]:
    """Yield the files in the driver's cache that a job needs.

    These are the adapters with which its tasks answer, and the states from which its trainings continue.
    """
    cache = Cache(Path(job.cache))
    for task in job.tasks:
        for training in (task.resume, state_id(task.resume)) if task.resume else ():
            yield from sorted(path for path in cache.adapter(training).iterdir() if path.is_file())
        asked = [*([task.training] if task.prompts else []), *(each.id for each in task.timeline if each.prompts)]
        for training in asked if not task.train and (task.settings or task.attach) else ():
            yield from sorted(path for path in cache.adapter(training).iterdir() if path.is_file())


def pieces_of(path: Path) -> list[bytes]:
    """Return the content of a file in pieces."""
    with path.open("rb") as file:
        return list(iter(partial(file.read, PIECE), b"")) or [b""]


# --- on the node -----------------------------------------------------------------------------------------------------


def run_on_node(given: NodeJob, node: str) -> Generator[Piece]:
    """Run a job on this node and yield the pieces of what it sends; the last one is the event ENDED.

    Messages about failures name the `node`.
    """
    yield Piece(node=node)
    with _job_folder() as folder:
        end = yield from _work(given, folder, node)
    yield Piece(event=encode_line(end))  # after the cleaning, because the driver may then end this process


def _work(given: NodeJob, folder: Path, node: str) -> Generator[Piece, None, Event]:
    """Run a job in a folder on this node; yield what it sends before its end, and return the event of its end."""
    try:
        path = _prepare(given, folder)
    except HarnessError as error:
        return Event(EventKind.REFUSED, message=f"node {node}: {error}")
    until = None if given.left is None else time.monotonic() + given.left
    executor, end = Processes(command=programs.module(given.module)), Event(EventKind.ENDED)
    log, sent = path.with_suffix(".log"), _Sent(folder / "cache", set(given.files))
    try:
        for event in executor.run(path, log, timeout=given.timeout, until=until, stop=threading.Event()):
            yield from sent.pieces()
            if log.is_file():
                yield from sent.log(log)
            end = located(event, f"node {node}")
            if end.kind is not EventKind.ENDED:
                yield Piece(event=encode_line(end))
    finally:
        executor.close()
    return end


def _keep_bases(made: Path) -> None:
    """Keep quantised base models that a job made for later jobs on this node."""
    for base in (path for path in made.glob("*") if path.is_dir() and not path.name.startswith(PARTIAL)):
        kept = _node_cache() / "bases" / base.name
        if not kept.exists():
            with suppress(OSError):  # another job has kept the same one
                base.rename(kept)


def _node_cache() -> Path:
    """The folder on this node for quantised base models and for jobs that are running."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "qlora-harness"


@contextmanager
def _job_folder() -> Iterator[Path]:
    """Yield a new folder for a job; delete it afterwards, and those of jobs whose processes were killed."""
    jobs = _node_cache() / "jobs"
    for left in jobs.glob("[0-9]*-*"):
        if not psutil.pid_exists(int(left.name.partition("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    folder = jobs / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        _keep_bases(folder / "cache" / "bases")
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(given: NodeJob, folder: Path) -> Path:
    """Write the job and the files that it needs into a folder on this node; return the job's path.

    Raises:
        ModelError: the base model is not on this node, or differs from the driver's.
    """
    found, wanted = given.find(given.job.model.name), given.job.model
    if found.digest != wanted.digest:
        what = f"{wanted.name} is another model here: its digest is {found.digest[:12]}, and {wanted.digest[:12]} there"
        raise ModelError(what, remedy="Give all nodes the same files, or name a revision: owner/name@revision.")
    cache = folder / "cache"
    bases = _node_cache() / "bases"
    bases.mkdir(parents=True, exist_ok=True)
    cache.mkdir()
    (bases / LOADING_LOCK).touch()
    shutil.copytree(bases, cache / "bases", copy_function=os.link, ignore=shutil.ignore_patterns(f"{PARTIAL}*"))
    for name, data in given.files.items():
        target = cache / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"".join(data))
    path = folder / "job.json"
    write_record(path, replace(given.job, model=found, cache=str(cache)))
    return path


class _Sent:
    """Keeps track of what a node has sent."""

    def __init__(self, cache: Path, known: set[str]) -> None:
        self._cache, self._known, self._logged = cache, known, 0

    def pieces(self) -> Iterator[Piece]:
        """Yield the files of the cache that were not sent yet, entry by entry."""
        Cache(self._cache).finish()
        for kind in _KINDS:
            folder = self._cache / kind
            for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
                names = [f"{kind}/{entry.name}/{path.name}" for path in sorted(entry.iterdir()) if path.is_file()]
                fresh = [name for name in names if name not in self._known]
                for name in fresh:
                    for data in pieces_of(self._cache / name):
                        yield Piece(file=name, data=data)
                if fresh:
                    self._known.update(fresh)
                    yield Piece(ends=entry.name)

    def log(self, path: Path) -> Iterator[Piece]:
        """Yield what was added to the log."""
        with path.open("rb") as file:
            file.seek(self._logged)
            added = file.read()
        self._logged += len(added)
        if added:
            yield Piece(log=added)


# --- on the driver ---------------------------------------------------------------------------------------------------


class Receiver:
    """Puts what a node sends into the driver's cache and log."""

    def __init__(self, job: Job, log: Path) -> None:
        self.node = ""
        """The name of the node that works; empty until it has begun."""
        self._cache, self._log = Cache(Path(job.cache)), log
        self._staging = Cache(log.with_suffix(".incoming"))
        self._trained = {each for task in job.tasks if task.settings or task.attach for each in _keys(task)}
        log.write_bytes(b"")
        for task in job.tasks:
            if task.train and self._cache.training(task.training) is not None:
                self._cache.forget(task.training)  # such as a training that ran out of memory on another machine

    def receive(self, piece: Piece) -> Event | None:
        """Store a piece; return its event, if it has one."""
        self.node = piece.node or self.node
        if piece.log:
            with self._log.open("ab") as file:
                file.write(piece.log)
        if piece.file:
            target = self._target(piece.file)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("ab") as file:
                file.write(piece.data)
        if piece.ends:
            self._cache.adopt(self._staging, piece.ends, trained=piece.ends in self._trained)
        return decode_line(piece.event, Event) if piece.event else None

    def close(self) -> None:
        """Delete files that are no longer needed."""
        shutil.rmtree(self._staging.root, ignore_errors=True)

    def _target(self, name: str) -> Path:
        """Return where a file is stored until it is complete. A name that leads out of the cache is refused."""
        kind, *rest = name.split("/")
        if kind not in _KINDS or len(rest) != 2 or any(part in ("", ".", "..") or "\\" in part for part in rest):
            raise ValueError(f"a node sent a file with the name {name!r}")
        return self._staging.root / kind / rest[0] / rest[1]


def _keys(task: Task) -> list[str]:
    return [task.training, state_id(task.training), *(each.id for each in task.timeline)]


def read_job(path: Path) -> Job:
    """Read the file of a job."""
    return read_record(path, Job)
