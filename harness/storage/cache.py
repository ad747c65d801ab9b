"""The cache of trained adapters, raw answers and quantised bases, shared between runs."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from harness.core.answers import Answer
from harness.core.errors import NewerFormatError, StoreError
from harness.core.hashing import digest
from harness.core.machine import Calibration
from harness.core.measurement import PhaseCost
from harness.core.model import SavedBase
from harness.core.training import Status, Training
from harness.storage.files import PARTIAL, check_room, copy_folder, locked, move, new_folder, sync, writing
from harness.storage.manifest import MANIFEST, verify_manifest, write_manifest
from harness.storage.records import copy_record, read_record, write_record

_COMMITS = "commits"


_KINDS = ("trainings", "answers", "bases", _COMMITS)


_USERS = "users"
"""Folder with one lock file for each run that uses the cache, named by the digest of the run's path."""


_MEMBERS = {"trainings": "*", "answers": "*/*.json"}
"""Glob patterns of the entries of a commit that are each moved as one, by kind."""


def snapshot_id(training: str, epoch: int | str) -> str:
    """Return the cache's name for the adapter of a training after `epoch` epochs."""
    return f"{training}-epoch-{epoch}"


@dataclass(frozen=True)
class Held:
    """Number of entries and bytes of one part of the cache."""

    kind: str
    entries: int
    bytes: int


@dataclass(frozen=True)
class Cache:
    """Trained adapters and raw answers, shared by all runs with the same inputs."""

    root: Path

    def training(self, training: str) -> Training | None:
        """Return the outcome of a training, or None where the cache has none. A damaged entry is deleted."""
        self.finish()
        path = self.adapter(training) / "training.json"
        if not path.is_file():
            return None
        try:
            return read_record(path, Training)
        except NewerFormatError:
            raise
        except StoreError:
            self.forget(training)
            return None

    def adapter(self, training: str) -> Path:
        return self.root / "trainings" / training

    @contextmanager
    def together(self) -> Iterator[Commit]:
        """Add everything in the commit to the cache when the block ends: all of it or nothing, even after a kill."""
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
        """Move committed entries to their final places. Readers call this first, because a kill can interrupt it."""
        if not self._committed():
            return

        with writing(self.root), FileLock(self.root / _COMMITS / ".lock"):
            for commit in self._committed():
                for member in (path for kind, each in _MEMBERS.items() for path in sorted((commit / kind).glob(each))):
                    move(member, self.root / member.relative_to(commit))
                shutil.rmtree(commit, ignore_errors=True)

    def _committed(self) -> list[Path]:
        """Return the commits with entries that may not be in their final places yet."""
        return sorted(path for path in (self.root / _COMMITS).glob("*") if not path.name.startswith("."))

    def commit_training(
        self,
        training: Training,
        save: Callable[[Path], None] | None,
        inspect: Callable[[Training, Path], Training] | None = None,
    ) -> None:
        """Add one training to the cache; see `Commit.training`."""
        with self.together() as commit:
            commit.training(training, save, inspect)

    def answers(self, training: str) -> tuple[AnswerPass, ...]:
        """Return every stored pass of answers for a training (or for a base), oldest first."""
        self.finish()
        folder = self.root / "answers" / training
        return tuple(made for path in sorted(folder.glob("[0-9]*.json")) if (made := _pass_in(path)) is not None)

    def commit_answers(self, training: str, made: AnswerPass) -> None:
        """Add one pass of answers to the cache."""
        with self.together() as commit:
            commit.answers(training, made)

    def base(self, saved: str) -> Path | None:
        """Return the folder of a saved base, or None where there is none. A damaged one is deleted.

        Checking for damage reads every byte, which takes seconds for a 7B model.
        """
        folder = self.root / "bases" / saved
        if not (folder / "base.json").is_file():
            return None
        try:
            read_record(folder / "base.json", SavedBase)
            verify_manifest(folder)
        except NewerFormatError:
            raise
        except StoreError:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return folder

    def commit_base(self, saved: SavedBase, size: int, save: Callable[[Path], None]) -> None:
        """Call `save` to write about `size` bytes into a new entry, then add their manifest.

        Raises:
            StoreError: the disk has too little space.
        """
        final = self.root / "bases" / saved.id
        check_room(final, size)
        with new_folder(final) as partial:
            save(partial)
            write_record(partial / "base.json", saved)
            write_manifest(partial)

    def calibration(self, device: str) -> Calibration | None:
        """Return the measured speed of this GPU, or None where it was never measured or the file is damaged."""
        path = self._calibration_path(device)
        try:
            return read_record(path, Calibration) if path.is_file() else None
        except NewerFormatError:
            raise
        except StoreError:
            return None

    def commit_calibration(self, found: Calibration) -> Path:
        path = self._calibration_path(found.device)
        write_record(path, found)
        return path

    def _calibration_path(self, device: str) -> Path:
        return self.root / "calibrations" / f"{digest(device)}.json"

    def adopt(self, other: Cache, training: str, *, trained: bool) -> None:
        """Copy from `other` what this cache lacks of a training: the adapter and every pass of answers, if undamaged.

        With `trained` False, the answers are a base model's and there is no adapter. Otherwise answers are copied only
        if this cache then has the adapter, since an adapter that is trained again may differ slightly.

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
        """Delete a training, its answers, and the adapters and answers of its epochs."""
        self.finish()
        for kind in ("trainings", "answers"):
            for name in (training, *(path.name for path in (self.root / kind).glob(snapshot_id(training, "[0-9]*")))):
                shutil.rmtree(self.root / kind / name, ignore_errors=True)

    def held(self) -> tuple[Held, ...]:
        return tuple(_held(kind, self.root / kind) for kind in _KINDS)

    @contextmanager
    def in_use(self, by: Path) -> Iterator[None]:
        """Prevent `clear` while the run in directory `by` uses the cache: until the block or this process ends."""
        lock = self.root / _USERS / f"{digest(str(by.resolve()))}.lock"
        with locked(lock, f"another process is emptying {self.root}", "Wait until it has finished."):
            yield

    def clear(self) -> None:
        """Delete everything in the cache except calibrations.

        Raises:
            RunInUseError: a run is using the cache.
        """
        with ExitStack() as held:
            for lock in sorted((self.root / _USERS).glob("*.lock")):
                held.enter_context(locked(lock, f"a run is using {self.root}", "Wait until it has ended, or stop it."))
            for kind in _KINDS:
                shutil.rmtree(self.root / kind, ignore_errors=True)


@dataclass(frozen=True)
class Commit:
    """Entries that are added to a cache together, in a folder that nothing reads before the commit."""

    cache: Cache
    folder: Path

    def training(
        self,
        training: Training,
        save: Callable[[Path], None] | None,
        inspect: Callable[[Training, Path], Training] | None = None,
    ) -> None:
        """Call `save` to write the adapter's files, then write their manifest and the outcome of the training.

        `inspect` returns the outcome with what only the saved files show.
        """
        final = self.cache.adapter(training.id)
        folder = self._place(final)
        with writing(final):
            folder.mkdir(parents=True)
            if save is not None:
                save(folder)
                write_manifest(folder)
                training = inspect(training, folder) if inspect else training
            write_record(folder / "training.json", training)

    def answers(self, training: str, made: AnswerPass) -> None:
        folder = self.cache.root / "answers" / training
        number = 1 + max((int(path.name[:4]) for path in folder.glob("[0-9]*.json")), default=0)
        # Two runs that answer at the same time may choose the same number; the digest makes their names differ.
        name = f"{number:04}-{digest([answer.key for answer in made.answers])}.json"
        write_record(self._place(folder / name), made)

    def _place(self, final: Path) -> Path:
        return self.folder / final.relative_to(self.cache.root)


class _IncompleteError(Exception):
    """The folder to copy is incomplete, or changed while it was copied."""


def _check_training(folder: Path) -> None:
    """Check that a copy is complete: its outcome can be read, and the files of an adapter match their digests."""
    try:
        ended = read_record(folder / "training.json", Training)
        if ended.status is Status.SUCCEEDED or (folder / MANIFEST).exists():
            verify_manifest(folder)
    except NewerFormatError:
        raise
    except StoreError as error:
        raise _IncompleteError(str(error)) from None


def _pass_in(path: Path) -> AnswerPass | None:
    """Read one pass of answers. A damaged one is deleted, so that its questions are answered again."""
    try:
        return read_record(path, AnswerPass)
    except NewerFormatError:
        raise
    except StoreError:
        path.unlink(missing_ok=True)
        return None


def _held(kind: str, folder: Path) -> Held:
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    entries = sum(1 for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else 0
    return Held(kind, entries, sum(path.stat().st_size for path in files))


@dataclass(frozen=True)
class AnswerPass:
    """The answers of one pass of a worker, and the cost of the pass (with that of loading the model for it)."""

    answers: tuple[Answer, ...]
    costs: tuple[PhaseCost, ...]
