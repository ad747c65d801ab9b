"""The cache of adapters, answers, quantised base models and calibrations, which all runs share."""

from __future__ import annotations

import os
import shlex
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.core.answers import Answer
from harness.core.errors import NewerFormatError, StoreError, UnreadableFileError
from harness.core.hashing import digest
from harness.core.machine import Calibration
from harness.core.measurement import PhaseCost
from harness.core.model import ConvertedModel, SavedBase
from harness.core.training_outcome import Status, Training
from harness.storage.files import (
    PARTIAL,
    check_no_link,
    check_room,
    copy_folder,
    locked,
    move,
    new_folder,
    sync,
    writing,
)
from harness.storage.manifest import MANIFEST, verify_manifest, write_manifest
from harness.storage.records import copy_record, read_record, write_record

_COMMITS = "commits"
_KINDS = ("trainings", "answers", "bases", "converted", _COMMITS)
"""The folders of the cache that `Cache.clear` deletes."""
_USERS = "users"
"""Folder of lock files. Each run that uses the cache has a lock file, named after the digest of the run's path."""
LOADING_LOCK = ".loading.lock"
"""Lock file in the folder of base models. A worker holds it while it loads a base model."""
_CLEARING = "clearing.lock"
"""Lock file that `Cache.clear` holds while it deletes, and that a run holds for a moment when it begins."""
_PATIENCE = 2.0
"""Seconds to wait for this lock, because several runs may begin at the same moment."""
_MOVING_INTERVAL = 0.005
"""Seconds between two attempts to get the lock under which entries are moved, which takes milliseconds."""
_LOADING_INTERVAL = 2.0
"""Seconds between two calls of `waiting` while another worker loads a base model."""
_ENTRIES = {"trainings": "*", "answers": "*/*.json"}
"""Glob patterns of the entries in a commit: an adapter is a folder, and answers are single files."""


def snapshot_id(training: str, epoch: int | str) -> str:
    """Return the cache key for the adapter of a training after `epoch` epochs."""
    return f"{training}-epoch-{epoch}"


def state_id(training: str) -> str:
    """Return the cache key for the optimizer and schedule of a training that stopped before its end."""
    return f"{training}-state"


@dataclass(frozen=True)
class AnswerPass:
    """Answers that a worker stored together, and the costs of loading the model and of answering."""

    answers: tuple[Answer, ...]
    costs: tuple[PhaseCost, ...]


@dataclass(frozen=True)
class Held:
    """One folder of the cache (`kind`), with its number of entries and its size in bytes."""

    kind: str
    entries: int
    bytes: int


@dataclass(frozen=True)
class Cache:
    """A cache folder. Keys are digests of all inputs, so runs with the same inputs share adapters and answers."""

    root: Path

    def training(self, training: str) -> Training | None:
        """Return the outcome of a training, or None if the cache has none. A damaged entry is deleted."""
        self.finish()
        path = self.adapter(training) / "training.json"
        if not path.is_file():
            return None
        try:
            return read_record(path, Training)
        except (NewerFormatError, UnreadableFileError):
            raise
        except StoreError:
            self.forget(training)
            return None

    def adapter(self, training: str) -> Path:
        """Return the path of the folder of a training's adapter. The folder may not exist."""
        return self.root / "trainings" / training

    def commit_training(
        self,
        training: Training,
        save: Callable[[Path], None] | None,
        inspect: Callable[[Training, Path], Training] | None = None,
    ) -> None:
        """Add one training to the cache. `Commit.training` describes the parameters."""
        with self.together() as commit:
            commit.training(training, save, inspect)

    def answers(self, training: str) -> tuple[AnswerPass, ...]:
        """Return all stored answers of a training or a base model, grouped as workers stored them, oldest first."""
        self.finish()
        folder = self.root / "answers" / training
        return tuple(made for path in sorted(folder.glob("[0-9]*.json")) if (made := _pass_in(path)) is not None)

    def commit_answers(self, training: str, made: AnswerPass) -> None:
        """Add answers of a training or a base model to the cache."""
        with self.together() as commit:
            commit.answers(training, made)

    @contextmanager
    def together(self) -> Iterator[Commit]:
        """Yield a commit, and add its entries to the cache when the block ends.

        Either all entries of the commit are added or none, even if the process is killed.
        """
        partial = self.root / _COMMITS / f"{PARTIAL}{uuid.uuid4().hex}"
        try:
            yield Commit(self, partial)
            if partial.is_dir():
                with writing(self.root):
                    sync(partial)
                    os.replace(partial, partial.with_name(uuid.uuid4().hex))
                    sync(partial.parent, deep=False)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self.finish()

    def finish(self) -> None:
        """Move committed entries to their final places.

        All methods that read entries call this method first, because a process may have been killed after it committed
        entries and before it moved them.

        Raises:
            StoreError: a folder of the cache is a link, so this would move and delete the files of another folder.
        """
        for kind in _KINDS:
            check_no_link(self.root / kind)
        if not self._committed():
            return
        lock, moved = FileLock(self.root / _COMMITS / ".lock"), []
        with writing(self.root), lock.acquire(poll_interval=_MOVING_INTERVAL):
            for commit in self._committed():
                for entry in (path for kind, each in _ENTRIES.items() for path in sorted((commit / kind).glob(each))):
                    move(entry, self.root / entry.relative_to(commit))
                moved.append(commit.with_name(f"{PARTIAL}{commit.name}"))
                os.replace(commit, moved[-1])
        for folder in moved:  # empty folders, deleted without the lock for which others wait
            shutil.rmtree(folder, ignore_errors=True)

    def _committed(self) -> list[Path]:
        """Return the folders of commits whose entries may not be in their final places yet."""
        return sorted(path for path in (self.root / _COMMITS).glob("*") if not path.name.startswith("."))

    def base(self, saved: str) -> Path | None:
        """Return the folder of a quantised base model, or None if the cache has none. A damaged folder is deleted.

        The check for damage reads every byte, which takes seconds for a 7B model.
        """
        folder = self.root / "bases" / saved
        return folder if _intact(folder, "base.json", SavedBase) else None

    def commit_base(self, saved: SavedBase, size: int, save: Callable[[Path], None]) -> None:
        """Add a quantised base model of about `size` bytes. `save` writes the model into a given folder.

        Raises:
            StoreError: the disk has too little space.
        """
        final = self.root / "bases" / saved.id
        check_room(final, size)
        with new_folder(final) as partial:
            save(partial)
            write_record(partial / "base.json", saved)
            write_manifest(partial)

    @contextmanager
    def loading(self, waiting: Callable[[], None]) -> Iterator[FileLock]:
        """Hold the lock of the workers that load a base model. Call `waiting` every few seconds until it is free.

        The lock can be released before the block ends. It ends with the process, even if the process is killed. Where
        no lock file can be written, nobody waits.
        """
        path = self.root / "bases" / LOADING_LOCK
        lock = FileLock(path)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            while not lock.is_locked:
                with suppress(Timeout):
                    lock.acquire(timeout=_LOADING_INTERVAL)
                    break
                waiting()
        try:
            yield lock
        finally:
            lock.release()

    def converted(self, model: str) -> Path | None:
        """Return the folder of a model that was made of a GGUF file, or None if the cache has none.

        A damaged folder is deleted. The check for damage reads every byte.
        """
        folder = self.root / "converted" / model
        return folder if _intact(folder, "conversion.json", ConvertedModel) else None

    def commit_converted(self, record: ConvertedModel, size: int, make: Callable[[Path], None]) -> Path:
        """Add a model of about `size` bytes that was made of a GGUF file. `make` writes it into a given folder.

        If another process is making the same model, wait for that process and use its result.

        Raises:
            StoreError: the disk has too little space.
        """
        final = self.root / "converted" / record.id
        check_room(final, size)
        with writing(final):
            final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(final.parent / ".lock"):
            if self.converted(record.id) is None:
                with new_folder(final) as partial:
                    make(partial)
                    write_record(partial / "conversion.json", record)
                    write_manifest(partial)
        return final

    def calibration(self, device: str) -> Calibration | None:
        """Return the measured speed of the GPU `device`, or None if it was not measured or the file is damaged."""
        path = self._calibration_path(device)
        try:
            return read_record(path, Calibration) if path.is_file() else None
        except NewerFormatError:
            raise
        except StoreError:
            return None

    def commit_calibration(self, found: Calibration) -> Path:
        """Write the measured speed of a GPU, and return the file's path."""
        path = self._calibration_path(found.device)
        write_record(path, found)
        return path

    def _calibration_path(self, device: str) -> Path:
        return self.root / "calibrations" / f"{digest(device)}.json"

    def adopt(self, other: Cache, training: str, *, trained: bool) -> None:
        """Copy the adapter and the answers of a training from the cache `other`, unless this cache has them.

        Damaged files are not copied. If `trained` is False, `training` is the key of a base model, which has answers
        but no adapter. Otherwise, answers are copied only if this cache then has the adapter that gave them, because
        repeating the training may give a slightly different adapter.

        Raises:
            StoreError: the disk has too little space, or the cache cannot be written.
        """
        self.finish()
        other.finish()
        source, final = other.adapter(training), self.adapter(training)
        if not (final / "training.json").is_file() and (source / "training.json").is_file():
            with suppress(_IncompleteError), new_folder(final) as partial:
                copy_folder(source, partial)
                _check_training(partial)
        if trained and not (final / "training.json").is_file():
            return
        for path in sorted((other.root / "answers" / training).glob("[0-9]*.json")):
            target = self.root / "answers" / training / path.name
            if not target.is_file():
                copy_record(path, target, AnswerPass)

    def forget(self, training: str) -> None:
        """Delete the adapter and the answers of a training, and those that were stored after each of its epochs."""
        self.finish()
        for kind in ("trainings", "answers"):
            for name in (training, *(path.name for path in (self.root / kind).glob(snapshot_id(training, "[0-9]*")))):
                shutil.rmtree(self.root / kind / name, ignore_errors=True)

    def held(self) -> tuple[Held, ...]:
        """Return the number of entries and the size of each folder that `clear` deletes."""
        return tuple(_held(kind, self.root / kind) for kind in _KINDS)

    @contextmanager
    def in_use(self, by: Path) -> Iterator[None]:
        """Keep `clear` from deleting the cache while the run in directory `by` uses it.

        The protection ends when the block or the process ends.
        """
        lock = self.root / _USERS / f"{digest(str(by.resolve()))}.lock"
        why = f"another process is emptying {self.root}", "Wait until it has finished."
        with ExitStack() as held:
            with locked(self.root / _CLEARING, *why, patience=_PATIENCE):
                held.enter_context(locked(lock, *why))
            yield

    def clear(self) -> None:
        """Delete everything in the cache except calibrations.

        Raises:
            RunInUseError: a run is using the cache.
        """
        with ExitStack() as locks:
            # Held until everything is deleted, so that no run begins in the meantime.
            why = f"another process is emptying {self.root}, or a run is just beginning"
            locks.enter_context(locked(self.root / _CLEARING, why, "Try again in a minute.", patience=_PATIENCE))
            for lock in sorted((self.root / _USERS).glob("*.lock")):
                locks.enter_context(locked(lock, f"a run is using {self.root}", "Wait until it has ended, or stop it."))
            for kind in _KINDS:
                shutil.rmtree(self.root / kind, ignore_errors=True)


@dataclass(frozen=True)
class Commit:
    """Entries that are added to a cache together. Until they are committed, readers ignore their folder."""

    cache: Cache
    folder: Path

    def training(
        self,
        training: Training,
        save: Callable[[Path], None] | None,
        inspect: Callable[[Training, Path], Training] | None = None,
    ) -> None:
        """Add a training to the commit: its adapter, a manifest of the adapter's files, and the outcome.

        `save` writes the adapter into a folder; it is None if there is no adapter, for example because the training
        failed. After saving, `inspect` may complete the outcome with facts about the files, such as their dtype.
        """
        final = self.cache.adapter(training.id)
        folder = self._place(final)
        with writing(final):
            folder.mkdir(parents=True)
            if save is not None:
                save(folder)
                write_manifest(folder)
                training = inspect(training, folder) if inspect else training
            write_record(folder / "training.json", training, durable=False)  # `Cache.together` flushes all entries

    def answers(self, training: str, made: AnswerPass) -> None:
        """Add answers of a training or a base model to the commit."""
        folder = self.cache.root / "answers" / training
        number = 1 + max((int(path.name[:4]) for path in folder.glob("[0-9][0-9][0-9][0-9]*.json")), default=0)
        # Two runs that answer at the same time may choose the same number; the digest makes the file names differ.
        name = f"{number:04}-{digest([answer.key for answer in made.answers])}.json"
        write_record(self._place(folder / name), made, sealed=True, durable=False)

    def _place(self, final: Path) -> Path:
        return self.folder / final.relative_to(self.cache.root)


class _IncompleteError(Exception):
    """The copied folder is incomplete, or changed while it was copied."""


def _check_training(folder: Path) -> None:
    """Check that the copy of a training is complete: its outcome can be read, and its files match the manifest."""
    try:
        ended = read_record(folder / "training.json", Training)
        if ended.status is Status.SUCCEEDED or (folder / MANIFEST).exists():
            verify_manifest(folder)
    except NewerFormatError:
        raise
    except StoreError as error:
        raise _IncompleteError(str(error)) from None


def _intact(folder: Path, record: str, kind: type[Any]) -> bool:
    """Whether a folder has its record and all files of its manifest. A damaged folder is deleted."""
    if not (folder / record).is_file():
        return False
    try:
        read_record(folder / record, kind)
        verify_manifest(folder)
    except (NewerFormatError, UnreadableFileError):
        raise
    except StoreError:
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True


def _pass_in(path: Path) -> AnswerPass | None:
    """Read a file of answers. A damaged file is deleted, so that a worker answers its prompts again."""
    try:
        return read_record(path, AnswerPass)
    except (NewerFormatError, UnreadableFileError):
        raise
    except StoreError:
        path.unlink(missing_ok=True)
        return None


def _size(folder: Path) -> int:
    """Bytes of the files in a folder and in its folders. Unreadable folders count nothing.

    `Path.rglob` is not used, since from Python 3.14 on it leaves out what it cannot follow.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, PermissionError):
            raise error

    walked = os.walk(folder, onerror=refuse) if folder.is_dir() else ()
    files = (Path(parent, name) for parent, _, names in walked for name in names)
    return sum(path.stat().st_size for path in files if path.is_file())


def _held(kind: str, folder: Path) -> Held:
    try:
        entries = sum(1 for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else 0
        return Held(kind, entries, _size(folder))
    except (RecursionError, OSError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else error.strerror
        raise StoreError(
            f"cannot read {folder}: {what}", remedy=f"Delete it with `rm -r {shlex.quote(str(folder))}`."
        ) from None
