"""The only owner of paths, file formats, format versions and atomic writes.

A run directory holds the inputs and results of one run. The cache holds what is expensive to make and shared by runs:

    RUN/run.json                     the run's inputs: suite, plan, model, machine (RunManifest)
    RUN/trials/TRIAL/record.json     a finished trial, written last (TrialRecord); `confirm/` has the same layout
    RUN/workers/001.log, 001.json    the log and the job of each worker process
    RUN/parity/*.json                comparisons of the stages from adapter to GGUF (Parity)
    RUN/exports/                     exported models
    RUN/results.json, samples.jsonl, report.html

    CACHE/trainings/ID/training.json the outcome of a training, written last, beside the adapter's own files
    CACHE/answers/ID/*.json          raw answers, one file per pass
    CACHE/bases/ID/                  a quantised base, as save_pretrained writes it, with base.json
    CACHE/calibrations/ID.json       the measured speed of a GPU; never cleared
    CACHE/commits/                   trainings and answers that are being added, in the same layout as the cache

ID-epoch-N is the adapter of a training after N epochs.

    reports/baselines/NAME.json      a baseline for the gate (Baseline), laid out for git and for reading in a diff

A file counts once it exists under its final name. Files that a killed process left under a temporary name are ignored,
and are deleted when the cache is cleared. Entries that belong together are written into one folder below CACHE/commits;
renaming that folder commits them. Then each entry is moved to its final place. If the process is killed before that,
the next reader of the cache moves them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from harness.errors import NewerFormatError, RunInUseError, StoreError
from harness.records import (
    FORMAT,
    Answer,
    Baseline,
    Calibration,
    Job,
    Parity,
    PhaseCost,
    Results,
    RunManifest,
    SavedBase,
    Settings,
    Split,
    Status,
    Training,
    TrialRecord,
)
from harness.storage.upgrades import newest, upgraded

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

MANIFEST = "MANIFEST.sha256"
_PARTIAL = ".partial-"
_PAGES = ("run.json", "samples.jsonl", "report.html", "results.json")
_COMMITS = "commits"
_KINDS = ("trainings", "answers", "bases", _COMMITS)
_USERS = "users"
"""Folder with one lock file for each run that uses the cache, named by the digest of the run's path."""
_MEMBERS = {"trainings": "*", "answers": "*/*.json"}
"""Glob patterns of the entries of a commit that are each moved as one, by kind."""
_TO_SPARE = 10**9
"""Bytes that must stay free on the disk after a large write, for records and logs."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR)
_ELSEWHERE = {errno.EISDIR: "Name a file, not a directory.", errno.ENAMETOOLONG: "Give it a shorter name."}
"""Remedies for particular system errors. For all others, writing to another place helps."""
_REDO = "Restore the file, or delete it and run `harness run` again: it redoes only what is missing."


def digest(value: object) -> str:
    """16 hex digits over `value` as canonical JSON; the same value has the same digest in every process."""
    text = json.dumps(value, default=_identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _identity(value: object) -> Any:
    """As `_plain`, but a training setting that was added later does not change digests while it has its default."""
    return value.identity() if isinstance(value, Settings) else _plain(value)


def _plain(value: object) -> Any:
    """Convert one level of a value that `json` cannot write.

    pydantic would convert all levels, but it fails at an unpaired surrogate in a key.
    """
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)


# --- single files ------------------------------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file in the same directory, so that a reader sees either the old text or the new one.

    Raises:
        StoreError: the disk is full, or the path cannot be written.
    """
    partial = path.parent / f"{_PARTIAL}{uuid.uuid4().hex}"  # not `with_name`: `.` and `/` have no name to replace
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # YAML, JSON and models can produce unpaired surrogates, which UTF-8 cannot hold.
            with partial.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn system errors from writing `path`, or files below it, into errors that say what to do."""
    try:
        yield
    except Exception as error:
        if is_full(error):
            remedy = "Free some space (`harness clean` shows what the cache holds), then run the same command again."
            raise StoreError(f"the disk is full: could not write {path}", remedy=remedy) from error
        if not isinstance(error, OSError):
            raise
        if error.errno is None:  # raised by a library, not by the system
            raise
        why = "there is a file where a folder is needed" if error.errno in _IN_THE_WAY else error.strerror
        remedy = _ELSEWHERE.get(error.errno, "Name another place, or get permission to write there.")
        raise StoreError(f"cannot write {path}: {why}", remedy=remedy) from error


def is_full(error: BaseException) -> bool:
    """Whether an error means that the disk is full.

    safetensors raises its own exception, with the system's error number in the message.
    """
    number = getattr(error, "errno", None)
    return number in _FULL or any(f"(os error {full})" in str(error) for full in _FULL)


def write_record(path: Path, value: object) -> None:
    """Write `value`, a dataclass of `records`, as JSON with the format's version."""
    write_text(path, _text({"format": FORMAT, **_plain(value)}) + "\n")


def _text(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, indent=1)


def read_record(path: Path, kind: type[T]) -> T:
    """Read a dataclass that `write_record` wrote.

    Raises:
        StoreError: the file is missing, truncated, edited into something invalid, or written by a newer harness.
    """
    return _decode(_read_json(path), kind, path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"there is no file {path}", remedy="Check the path. `harness run` creates runs.") from None
    except NotADirectoryError:
        raise StoreError(f"{path.parent} is not a directory", remedy="Name the directory of a run.") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of 5000 digits, 2000 brackets
        raise _damaged(path, str(error)) from None
    if not isinstance(data, dict):
        raise _damaged(path, "it does not hold a JSON object")
    return data


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(f"{path} is damaged: {what}", remedy=_REDO)


def _decode(data: dict[str, Any], kind: type[T], path: Path) -> T:
    version = data.get("format")
    if not isinstance(version, int):
        raise _damaged(path, "it has no format version")
    if version > newest(kind):
        message = f"{path} has format {version}, and this harness reads up to {newest(kind)}"
        raise NewerFormatError(message, remedy="Upgrade the harness: pip install --upgrade qlora-harness")
    from pydantic import ValidationError

    try:
        value: T = _validated(kind, json.dumps(upgraded(data, kind)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _damaged(path, f"{where}: {first['msg']}") from None
    return value


def _validated(kind: Any, text: str) -> Any:
    return _adapter(kind).validate_json(text)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def decode_line(text: str, kind: type[T]) -> T:
    """Read a dataclass from one line of JSON, as a worker process sends it."""
    value: T = _validated(kind, text)
    return value


def encode_line(value: object) -> str:
    """Return `value` as one line of JSON. An unpaired surrogate becomes a question mark, as in files."""
    return json.dumps(value, default=_plain, ensure_ascii=False).encode("utf-8", errors="replace").decode()


# --- baselines ---------------------------------------------------------------------------------------------------

_WIDTH = 160


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline as JSON: values that fit on one line are on one line, and default values are left out."""
    # Converted to text and back, so that characters no file can hold are replaced before the digest is taken.
    data = json.loads(encode_line(_slim(baseline)))
    data["digest"] = _content_digest(data)
    write_text(path, _folded(data) + "\n")


def read_baseline(path: Path) -> Baseline:
    """Read the baseline in a file.

    Raises:
        NewerFormatError: a newer harness wrote it.
        StoreError: it is missing, truncated, or was edited.
    """
    remedy = "Restore it (for example, from git), or create it again with `harness bless`."
    try:
        data = _read_json(path)
        if data.get("digest") != _content_digest(data) and _version_of(data) <= FORMAT:
            raise _damaged(path, "its content does not match its digest, so somebody edited it")
        return _decode(data, Baseline, path)
    except NewerFormatError:
        raise
    except StoreError as error:
        raise StoreError(error.message, remedy=remedy) from None


def _version_of(data: Mapping[str, Any]) -> int:
    version = data.get("format")
    return version if isinstance(version, int) else 0


def _content_digest(data: Mapping[str, Any]) -> str:
    return digest({name: value for name, value in data.items() if name != "digest"})


def _slim(value: Any) -> Any:
    """Convert to plain values without fields that have their default; `Settings` keep all fields."""
    if is_dataclass(value):
        whole = isinstance(value, Settings)
        parts = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: _slim(part) for field, part in parts if whole or part != _default(field)}
    if isinstance(value, Mapping):
        return {name: _slim(part) for name, part in value.items()}
    return [_slim(part) for part in value] if isinstance(value, tuple | list) else value


def _default(field: Field[Any]) -> Any:
    """Return a field's default, or MISSING (which equals no value) where it has none."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _folded(value: object, depth: int = 0) -> str:
    """Return JSON in which every value that fits on one line is on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if depth + len(flat) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    pad = "\n" + " " * (depth + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(name, ensure_ascii=False)}: {_folded(part, depth + 1)}" for name, part in value.items()]
        return "{" + pad + ("," + pad).join(parts) + "\n" + " " * depth + "}"
    return "[" + pad + ("," + pad).join(_folded(part, depth + 1) for part in value) + "\n" + " " * depth + "]"


# --- directories with a manifest ---------------------------------------------------------------------------------


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Write the sha256 of every file in `folder`, in the format that `sha256sum --check` reads."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    write_text(folder / MANIFEST, "".join(f"{file_digest(p)}  {p.relative_to(folder).as_posix()}\n" for p in files))


def verify_manifest(folder: Path) -> None:
    """Check every listed file against its digest, because PEFT loads an adapter with flipped bytes without an error.

    Raises:
        StoreError: the manifest is missing, or a file is missing or changed.
    """
    remedy = "Delete the folder, then run `harness run` again: it makes a new one."
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    if not lines:
        raise StoreError(f"{folder} has no readable {MANIFEST}, so it is incomplete", remedy=remedy)
    for line in lines:
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or file_digest(path) != expected:
            raise StoreError(f"{path} is missing or is not the file that was saved", remedy=remedy)


def snapshot_id(training: str, epoch: int | str) -> str:
    """Return the cache's name for the adapter of a training after `epoch` epochs."""
    return f"{training}-epoch-{epoch}"


# --- cache -------------------------------------------------------------------------------------------------------


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
        partial = self.root / _COMMITS / f"{_PARTIAL}{uuid.uuid4().hex}"
        try:
            yield Commit(self, partial)
            if partial.is_dir():
                with writing(self.root):
                    _sync(partial)
                    os.replace(partial, partial.with_name(uuid.uuid4().hex))
                    _sync(partial.parent, deep=False)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self.finish()

    def finish(self) -> None:
        """Move committed entries to their final places. Readers call this first, because a kill can interrupt it."""
        if not self._committed():
            return
        from filelock import FileLock

        with writing(self.root), FileLock(self.root / _COMMITS / ".lock"):
            for commit in self._committed():
                for member in (path for kind, each in _MEMBERS.items() for path in sorted((commit / kind).glob(each))):
                    _move(member, self.root / member.relative_to(commit))
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
        with _new_folder(final) as partial:
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
            with suppress(_IncompleteError), _new_folder(final) as partial:
                _copy_folder(source, partial)
                _check_training(partial)
        if trained and not (final / "training.json").is_file():
            return
        for path in sorted((other.root / "answers" / training).glob("[0-9]*.json")):
            target = self.root / "answers" / training / path.name
            if not target.is_file():
                _copy_record(path, target, AnswerPass)

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
        with _locked(lock, f"another process is emptying {self.root}", "Wait until it has finished."):
            yield

    def clear(self) -> None:
        """Delete everything in the cache except calibrations.

        Raises:
            RunInUseError: a run is using the cache.
        """
        with ExitStack() as held:
            for lock in sorted((self.root / _USERS).glob("*.lock")):
                held.enter_context(_locked(lock, f"a run is using {self.root}", "Wait until it has ended, or stop it."))
            for kind in _KINDS:
                shutil.rmtree(self.root / kind, ignore_errors=True)


@contextmanager
def _locked(path: Path, message: str, remedy: str) -> Iterator[None]:
    """Hold a lock until the block or the process ends; raise an error with `message` if another process holds it."""
    from filelock import FileLock, Timeout

    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)  # kept in a variable: a lock object releases the lock when it is garbage-collected
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunInUseError(message, remedy=remedy) from None
    try:
        yield
    finally:
        lock.release()


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


def _move(member: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    if member.is_dir():
        shutil.rmtree(final, ignore_errors=True)
    with suppress(FileExistsError):  # another run has written the same entry in the meantime
        _rename(member, final)


def _sync(folder: Path, *, deep: bool = True) -> None:
    """Flush a folder's list of names to the disk, and with `deep` also everything in it."""
    for path in (folder, *(folder.rglob("*") if deep else ())):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


@contextmanager
def _new_folder(final: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, and rename it to `final` when the block ends."""
    partial = final.with_name(f"{_PARTIAL}{uuid.uuid4().hex}")
    with writing(final):
        try:
            partial.mkdir(parents=True)
            yield partial
            _move(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class _IncompleteError(Exception):
    """The folder to copy is incomplete, or changed while it was copied."""


def _copy_folder(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith(_PARTIAL):
            shutil.copyfile(path, target / path.name)
            with (target / path.name).open("rb") as copied:
                os.fsync(copied.fileno())


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


def _copy_record(source: Path, target: Path, kind: type[Any]) -> None:
    """Copy a record; do nothing if it cannot be read."""
    try:
        value = read_record(source, kind)
    except NewerFormatError:
        raise
    except (StoreError, OSError):
        return
    write_record(target, value)


def check_room(path: Path, size: int) -> None:
    """Check that the disk has space for `size` bytes at `path`, which need not exist yet.

    Raises:
        StoreError: it has too little space.
    """
    existing = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < size + _TO_SPARE:
        remedy = "Free some space (`harness clean` shows what the cache holds), then run the same command again."
        wanted = f"{path} needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        raise StoreError(f"the disk has too little space: {wanted}", remedy=remedy)


def _pass_in(path: Path) -> AnswerPass | None:
    """Read one pass of answers. A damaged one is deleted, so that its questions are answered again."""
    try:
        return read_record(path, AnswerPass)
    except NewerFormatError:
        raise
    except StoreError:
        path.unlink(missing_ok=True)
        return None


def _rename(folder: Path, final: Path) -> None:
    try:
        os.replace(folder, final)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(error.errno, error.strerror, str(final)) from error
        raise


def _held(kind: str, folder: Path) -> Held:
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    entries = sum(1 for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else 0
    return Held(kind, entries, sum(path.stat().st_size for path in files))


@dataclass(frozen=True)
class AnswerPass:
    """The answers of one pass of a worker, and the cost of the pass (with that of loading the model for it)."""

    answers: tuple[Answer, ...]
    costs: tuple[PhaseCost, ...]


# --- runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunStore:
    """One run directory."""

    root: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run directory for this process. The lock ends with the process, even if that is killed.

        Raises:
            RunInUseError: another process has locked it.
        """
        remedy = "Wait until it has ended, stop it, or name another directory with --output."
        with _locked(self.root / ".lock", f"another process is working in {self.root}", remedy):
            yield

    @property
    def exists(self) -> bool:
        return (self.root / "run.json").is_file()

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def manifest(self) -> RunManifest:
        return read_record(self.root / "run.json", RunManifest)

    def write_manifest(self, manifest: RunManifest) -> None:
        write_record(self.root / "run.json", manifest)

    def record(self, split: Split, trial: str) -> TrialRecord | None:
        path = self._record_path(split, trial)
        return read_record(path, TrialRecord) if path.is_file() else None

    def record_or_none(self, split: Split, trial: str) -> TrialRecord | None:
        """Return the record of a trial, or None where there is none or it is damaged."""
        try:
            return self.record(split, trial)
        except NewerFormatError:
            raise
        except StoreError:
            return None

    def adopt(self, other: RunStore) -> None:
        """Copy the records of `other` that are undamaged and missing here."""
        for path in sorted([*other.root.glob("trials/*/record.json"), *other.root.glob("confirm/*/record.json")]):
            target = self.root / path.relative_to(other.root)
            if not target.is_file():
                _copy_record(path, target, TrialRecord)

    def copy_pages(self, other: RunStore) -> None:
        """Copy the manifest, results, samples and report of `other` where they differ from those here."""
        for name in _PAGES:
            source, target = other.root / name, self.root / name
            if source.is_file() and not (target.is_file() and file_digest(target) == file_digest(source)):
                write_text(target, source.read_text(encoding="utf-8"))

    def write_trial(self, record: TrialRecord) -> None:
        write_record(self._record_path(record.split, record.trial), record)

    def records(self) -> tuple[TrialRecord, ...]:
        paths = sorted([*self.root.glob("trials/*/record.json"), *self.root.glob("confirm/*/record.json")])
        return tuple(read_record(path, TrialRecord) for path in paths)

    def forget_records(self, keep: Iterable[tuple[Split, str]]) -> None:
        """Delete the records of trials that are not in `keep`, such as confirmations of an earlier choice."""
        wanted = {self._record_path(split, trial).parent for split, trial in keep}
        for folder in (*self.root.glob("trials/*"), *self.root.glob("confirm/*")):
            if folder not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def _record_path(self, split: Split, trial: str) -> Path:
        folder = "trials" if split is Split.MAIN else "confirm"
        return self.root / folder / trial / "record.json"

    def new_worker(self, job: Job) -> tuple[Path, Path]:
        """Write the job of the next worker; return the paths of the job and of the worker's log."""
        folder = self.root / "workers"
        number = 1 + max((int(path.stem) for path in folder.glob("[0-9]*.json")), default=0)
        path = folder / f"{number:03}.json"
        write_record(path, job)
        return path, path.with_suffix(".log")

    @property
    def has_results(self) -> bool:
        return (self.root / "results.json").is_file()

    def parities(self) -> tuple[Parity, ...]:
        """Return every stored comparison of the stages from adapter to GGUF."""
        return tuple(read_record(path, Parity) for path in sorted((self.root / "parity").glob("*.json")))

    def write_parity(self, label: str, parity: Parity) -> None:
        write_record(self.root / "parity" / f"{label}.json", parity)

    def results(self) -> Results:
        return read_record(self.root / "results.json", Results)

    def write_results(self, results: Results, samples: Iterable[Mapping[str, object]], page: str) -> None:
        """Write results.json, samples.jsonl and report.html."""
        lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        write_text(self.root / "samples.jsonl", lines)
        write_text(self.report, page)
        write_record(self.root / "results.json", results)


def find_run(path: Path) -> RunStore:
    """Return the run in directory `path`, or the run to which the file `path` (results.json, report.html) belongs.

    Raises:
        StoreError: there is no run; the error lists the runs in reports/runs.
    """
    folder = path if path.is_dir() else path.parent
    if (folder / "run.json").is_file():
        return RunStore(folder)
    known = sorted(str(p.parent) for p in Path("reports/runs").glob("*/run.json"))
    remedy = "Runs here: " + ", ".join(known) if known else "Create one with `harness run SUITE`."
    raise StoreError(f"there is no run in {path}", remedy=remedy)


def open_run(parent: Path, name: str, run_digest: str) -> RunStore:
    """Return the run NAME with this digest if one was begun, else the first free of NAME, NAME-2, NAME-3 and so on."""
    number = 1
    while True:
        store = RunStore(parent / (name if number == 1 else f"{name}-{number}"))
        if not store.exists or _digest_of(store) == run_digest:
            return store
        number += 1


def claim_run(folder: Path, run_digest: str) -> RunStore:
    """Return the run in the directory that `--output` names: new, empty, or of a run with the same inputs.

    Raises:
        StoreError: the directory holds another run or other files.
    """
    store = RunStore(folder)
    if folder.is_file():
        raise StoreError(f"{folder} is a file", remedy="Name a directory with --output.")
    if store.exists:
        if _digest_of(store) == run_digest:
            return store
        remedy = "Its suite, grid, model or library versions differ. Name another directory with --output."
        raise StoreError(f"{folder} holds another run", remedy=remedy)
    if folder.is_dir() and not all(_precedes_manifest(path.name) for path in folder.iterdir()):
        raise StoreError(f"{folder} is not empty and holds no run", remedy="Name a new directory with --output.")
    return store


def _precedes_manifest(name: str) -> bool:
    """Whether a run writes a file of this name before its run.json, so that a killed run may leave it."""
    return name in (".lock", "workers") or name.startswith(_PARTIAL)


def _digest_of(store: RunStore) -> str:
    """Read only the digest of a run's manifest: this is fast, and works for manifests of any format version."""
    return cast(str, _read_json(store.root / "run.json").get("digest", ""))
