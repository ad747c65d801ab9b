"""The only owner of paths, file formats, format versions and atomic writes.

A run directory holds what one run was asked and found; the cache holds what is expensive and shared between runs:

    RUN/run.json                     what was asked: suite, plan, model, machine (RunManifest)
    RUN/trials/TRIAL/record.json     a finished trial, written last (TrialRecord); `confirm/` likewise
    RUN/workers/001.log, 001.json    each worker process's log, and the job it was given
    RUN/parity/*.json                a ladder from adapter to GGUF (Parity); RUN/exports/ holds what was exported
    RUN/results.json, samples.jsonl, report.html

    CACHE/trainings/ID/training.json how a training ended, written last, beside the adapter's own files
    CACHE/answers/ID/*.json          raw answers, one file per pass
    CACHE/bases/ID/                  a quantised base, as save_pretrained writes it, with base.json
    CACHE/calibrations/ID.json       how fast a GPU was found to be; never cleared
    CACHE/commits/                   trainings and answers on their way in, laid out as they will lie in the cache

ID-epoch-N is the adapter of a training as it was after N epochs.

    reports/baselines/NAME.json      what a run is held against (Baseline), made to be committed and read in a diff

A file counts once its final name exists; what a killed process left under another name is ignored, and goes
when the cache is cleared. What enters the cache together is written below one folder of CACHE/commits; renaming that is
the commit. Then each part of it is moved to its place, by whoever reads the cache next if a kill comes between.
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
"""Locks of the runs that take from a cache, by the digest of where they lie."""
_MEMBERS = {"trainings": "*", "answers": "*/*.json"}
"""What of a commit is moved to its place as one, by kind."""
_TO_SPARE = 10**9
"""Bytes that writing something large leaves on the disk, for records and logs."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR)
_ELSEWHERE = {errno.EISDIR: "Name a file, not a directory.", errno.ENAMETOOLONG: "Give it a shorter name."}
"""What to do, by what the system says; whatever else it says, another place helps."""
_REDO = "Restore the file, or delete it and run `harness run` again: it redoes only what is missing."


def digest(value: object) -> str:
    """16 hex digits over `value` as canonical JSON; the same value has the same digest in every process."""
    text = json.dumps(value, default=_identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _identity(value: object) -> Any:
    """As `_plain`, but a training setting that was added later does not change digests while it has its default."""
    return value.identity() if isinstance(value, Settings) else _plain(value)


def _plain(value: object) -> Any:
    """One level of what json does not know; pydantic would do all levels, but fails at half a surrogate in a key."""
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)


# --- single files ------------------------------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file in the same directory, so that a reader sees the old text or the new.

    Raises:
        StoreError: the disk is full or the place cannot be written.
    """
    partial = path.parent / f"{_PARTIAL}{uuid.uuid4().hex}"  # not `with_name`: `.` and `/` have none
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Half a surrogate pair, which YAML, JSON and models can produce, has no place in a file that others read.
            with partial.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the system's refusals to write `path`, or below it, into errors that say what to do."""
    try:
        yield
    except Exception as error:
        if is_full(error):
            remedy = "Free some space (`harness clean` tells what the cache holds), then run the same command again."
            raise StoreError(f"the disk is full: could not write {path}", remedy=remedy) from error
        if not isinstance(error, OSError):
            raise
        if error.errno is None:  # raised by a library, for reasons of its own
            raise
        why = "a file stands where a folder would" if error.errno in _IN_THE_WAY else error.strerror
        remedy = _ELSEWHERE.get(error.errno, "Name another place, or see to it that you may write there.")
        raise StoreError(f"cannot write {path}: {why}", remedy=remedy) from error


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk is; safetensors has one of its own, with the system's number in its words."""
    number = getattr(error, "errno", None)
    return number in _FULL or any(f"(os error {full})" in str(error) for full in _FULL)


def write_record(path: Path, value: object) -> None:
    """`value`, a dataclass of `records`, as JSON with the format's version."""
    write_text(path, _text({"format": FORMAT, **_plain(value)}) + "\n")


def _text(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, indent=1)


def read_record(path: Path, kind: type[T]) -> T:
    """The dataclass that `write_record` wrote.

    Raises:
        StoreError: the file is not there, truncated, edited by hand into something else, or newer than this harness.
    """
    return _decode(_read_json(path), kind, path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"there is no {path}", remedy="Check the path; `harness run` makes runs.") from None
    except NotADirectoryError:
        raise StoreError(f"{path.parent} is not a directory", remedy="Name a run's directory.") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of 5000 digits, 2000 brackets
        raise _damaged(path, str(error)) from None
    if not isinstance(data, dict):
        raise _damaged(path, "it holds no JSON object")
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
    """A dataclass from one line of JSON, as a worker sends them."""
    value: T = _validated(kind, text)
    return value


def encode_line(value: object) -> str:
    """One line of JSON; half a surrogate pair, which no reader takes, becomes a question mark as it does in files."""
    return json.dumps(value, default=_plain, ensure_ascii=False).encode("utf-8", errors="replace").decode()


# --- baselines ---------------------------------------------------------------------------------------------------

_WIDTH = 160


def write_baseline(path: Path, baseline: Baseline) -> None:
    """A baseline as JSON in which whatever fits on a line is on one, and what goes without saying is left out."""
    # Through text once: what no file can hold is replaced before the digest is taken.
    data = json.loads(encode_line(_slim(baseline)))
    data["digest"] = _content_digest(data)
    write_text(path, _folded(data) + "\n")


def read_baseline(path: Path) -> Baseline:
    """The baseline in a file.

    Raises:
        NewerFormatError: a newer harness wrote it.
        StoreError: it is missing, truncated, or not as it was written.
    """
    remedy = "Restore it, from git for one, or make it anew with `harness bless`."
    try:
        data = _read_json(path)
        if data.get("digest") != _content_digest(data) and _version_of(data) <= FORMAT:
            raise _damaged(path, "its content is not what its digest was taken of, so somebody edited it")
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
    """Plain values less those that are a field's default, which they are read as again; settings are told in full."""
    if is_dataclass(value):
        whole = isinstance(value, Settings)
        parts = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: _slim(part) for field, part in parts if whole or part != _default(field)}
    if isinstance(value, Mapping):
        return {name: _slim(part) for name, part in value.items()}
    return [_slim(part) for part in value] if isinstance(value, tuple | list) else value


def _default(field: Field[Any]) -> Any:
    """MISSING, which nothing equals, where there is none."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _folded(value: object, depth: int = 0) -> str:
    """JSON with a line for whatever fits on one."""
    flat = json.dumps(value, ensure_ascii=False)
    if depth + len(flat) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    pad = "\n" + " " * (depth + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(name, ensure_ascii=False)}: {_folded(part, depth + 1)}" for name, part in value.items()]
        return "{" + pad + ("," + pad).join(parts) + "\n" + " " * depth + "}"
    return "[" + pad + ("," + pad).join(_folded(part, depth + 1) for part in value) + "\n" + " " * depth + "]"


# --- directories that appear whole -------------------------------------------------------------------------------


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """sha256 of every file in `folder`, as `sha256sum --check` reads it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    write_text(folder / MANIFEST, "".join(f"{file_digest(p)}  {p.relative_to(folder).as_posix()}\n" for p in files))


def verify_manifest(folder: Path) -> None:
    """Hold every listed file to its digest: PEFT loads an adapter with flipped bytes without complaint.

    Raises:
        StoreError: the manifest is missing, or a file is missing or changed.
    """
    remedy = "Delete the folder and run again: `harness run` makes it anew."
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    if not lines:
        raise StoreError(f"{folder} has no readable {MANIFEST}: it is not whole", remedy=remedy)
    for line in lines:
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or file_digest(path) != expected:
            raise StoreError(f"{path} is missing or is not the file that was saved", remedy=remedy)


def snapshot_id(training: str, epoch: int | str) -> str:
    """What the cache calls the adapter of a training as it was after so many epochs."""
    return f"{training}-epoch-{epoch}"


# --- cache -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What one part of the cache holds."""

    kind: str
    entries: int
    bytes: int


@dataclass(frozen=True)
class Cache:
    """Trained adapters and raw answers, shared by every run that has the same inputs."""

    root: Path

    def training(self, training: str) -> Training | None:
        """How a training ended, or None when that is not known yet (or no longer: a damaged entry is forgotten)."""
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
        """What is put into the commit enters the cache when the block ends: after a kill, all of it or nothing."""
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
        """Move to its place what was committed, and where a kill cut that short; before that nothing is read."""
        if not self._committed():
            return
        from filelock import FileLock

        with writing(self.root), FileLock(self.root / _COMMITS / ".lock"):
            for commit in self._committed():
                for member in (path for kind, each in _MEMBERS.items() for path in sorted((commit / kind).glob(each))):
                    _move(member, self.root / member.relative_to(commit))
                shutil.rmtree(commit, ignore_errors=True)

    def _committed(self) -> list[Path]:
        """Commits of which something may not be in its place yet."""
        return sorted(path for path in (self.root / _COMMITS).glob("*") if not path.name.startswith("."))

    def commit_training(
        self,
        training: Training,
        save: Callable[[Path], None] | None,
        inspect: Callable[[Training, Path], Training] | None = None,
    ) -> None:
        """A commit of one training; see `Commit.training`."""
        with self.together() as commit:
            commit.training(training, save, inspect)

    def answers(self, training: str) -> tuple[AnswerPass, ...]:
        """Every pass of answers known for a training (or for a base), oldest first."""
        self.finish()
        folder = self.root / "answers" / training
        return tuple(made for path in sorted(folder.glob("[0-9]*.json")) if (made := _whole(path)) is not None)

    def commit_answers(self, training: str, made: AnswerPass) -> None:
        """A commit of one pass of answers."""
        with self.together() as commit:
            commit.answers(training, made)

    def base(self, saved: str) -> Path | None:
        """The folder of a saved base, or None where there is none (or no longer: a damaged one is forgotten).

        Every byte is read to see that, which takes seconds for a 7B.
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
        """Let `save` write about `size` bytes, then add their manifest.

        Raises:
            StoreError: there is no room for so much.
        """
        final = self.root / "bases" / saved.id
        check_room(final, size)
        with _appearing(final) as partial:
            save(partial)
            write_record(partial / "base.json", saved)
            write_manifest(partial)

    def calibration(self, device: str) -> Calibration | None:
        """What a benchmark found of this GPU; None where none has run, or what it left is damaged."""
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
        """Take over what `other` has of a training and this has not: the adapter if it is whole, and every whole pass.

        `trained` False says that these are a base's answers. An adapter's go with it: one that is trained again may not
        be quite the same.

        Raises:
            StoreError: there is no room for it, or the place cannot be written.
        """
        self.finish()
        other.finish()
        source, final = other.adapter(training), self.adapter(training)
        if not (final / "training.json").is_file() and (source / "training.json").is_file():
            with suppress(_NotWholeError), _appearing(final) as partial:
                _copy_folder(source, partial)
                _check_training(partial)
        if trained and not (final / "training.json").is_file():
            return
        for path in sorted((other.root / "answers" / training).glob("[0-9]*.json")):
            there = self.root / "answers" / training / path.name
            if not there.is_file():
                _copy_record(path, there, AnswerPass)

    def forget(self, training: str) -> None:
        """Drop an adapter with every answer it gave, and those of its epochs."""
        self.finish()
        for kind in ("trainings", "answers"):
            for name in (training, *(path.name for path in (self.root / kind).glob(snapshot_id(training, "[0-9]*")))):
                shutil.rmtree(self.root / kind / name, ignore_errors=True)

    def held(self) -> tuple[Held, ...]:
        return tuple(_held(kind, self.root / kind) for kind in _KINDS)

    @contextmanager
    def in_use(self, by: Path) -> Iterator[None]:
        """What the run in `by` takes from here stays, wherever that lies, until this process ends or is done."""
        lock = self.root / _USERS / f"{digest(str(by.resolve()))}.lock"
        with _locked(lock, f"another process is emptying {self.root}", "Wait until it has."):
            yield

    def clear(self) -> None:
        """Empty it.

        Raises:
            RunInUseError: a run is taking from it.
        """
        with ExitStack() as held:
            for lock in sorted((self.root / _USERS).glob("*.lock")):
                held.enter_context(
                    _locked(lock, f"a run is taking from {self.root}", "Wait until it has ended, or stop it.")
                )
            for kind in _KINDS:
                shutil.rmtree(self.root / kind, ignore_errors=True)


@contextmanager
def _locked(path: Path, otherwise: str, remedy: str) -> Iterator[None]:
    """Hold a lock that ends with the process; the words are for where another holds it."""
    from filelock import FileLock, Timeout

    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)  # kept in a name: a lock object that is dropped excludes nobody
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunInUseError(otherwise, remedy=remedy) from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Commit:
    """What is to enter a cache together, in a folder that nobody reads."""

    cache: Cache
    folder: Path

    def training(
        self,
        training: Training,
        save: Callable[[Path], None] | None,
        inspect: Callable[[Training, Path], Training] | None = None,
    ) -> None:
        """Let `save` write the adapter's files, then add their manifest and how the training ended.

        `inspect` adds to that what only the saved files show.
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
        # The digest keeps two runs apart that answer at the same time.
        name = f"{number:04}-{digest([answer.key for answer in made.answers])}.json"
        write_record(self._place(folder / name), made)

    def _place(self, final: Path) -> Path:
        return self.folder / final.relative_to(self.cache.root)


def _move(member: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    if member.is_dir():
        shutil.rmtree(final, ignore_errors=True)
    with suppress(FileExistsError):  # another run made the same meanwhile
        _rename(member, final)


def _sync(folder: Path, *, deep: bool = True) -> None:
    """Let the disk have a folder's names, and with `deep` all that is in it."""
    for path in (folder, *(folder.rglob("*") if deep else ())):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


@contextmanager
def _appearing(final: Path) -> Iterator[Path]:
    """A folder to fill, which is called `final` once everything is in it."""
    partial = final.with_name(f"{_PARTIAL}{uuid.uuid4().hex}")
    with writing(final):
        try:
            partial.mkdir(parents=True)
            yield partial
            _move(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class _NotWholeError(Exception):
    """What was to be copied is only half there, or changed meanwhile."""


def _copy_folder(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith(_PARTIAL):
            shutil.copyfile(path, target / path.name)
            with (target / path.name).open("rb") as copied:
                os.fsync(copied.fileno())


def _check_training(folder: Path) -> None:
    """Hold a copy to being whole: how the training ended can be read, and an adapter is there with every byte."""
    try:
        ended = read_record(folder / "training.json", Training)
        if ended.status is Status.SUCCEEDED or (folder / MANIFEST).exists():
            verify_manifest(folder)
    except NewerFormatError:
        raise
    except StoreError as error:
        raise _NotWholeError(str(error)) from None


def _copy_record(source: Path, target: Path, kind: type[Any]) -> None:
    """Copy a record if it can be read."""
    try:
        value = read_record(source, kind)
    except NewerFormatError:
        raise
    except (StoreError, OSError):
        return
    write_record(target, value)


def check_room(path: Path, size: int) -> None:
    """Hold the disk of `path`, which need not be there yet, to having room for `size` bytes.

    Raises:
        StoreError: it has not.
    """
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < size + _TO_SPARE:
        remedy = "Free some space (`harness clean` tells what the cache holds), then run the same command again."
        wanted = f"{path} takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        raise StoreError(f"the disk has too little room: {wanted}", remedy=remedy)


def _whole(path: Path) -> AnswerPass | None:
    """A damaged pass is forgotten: its answers are given again."""
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
    """The answers that one pass of a worker made, and what the pass (and loading the model for it) cost."""

    answers: tuple[Answer, ...]
    costs: tuple[PhaseCost, ...]


# --- runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunStore:
    """One run directory."""

    root: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run directory for this process; the lock ends with the process, however that ends.

        Raises:
            RunInUseError: another process holds it.
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
        """The record, or None where there is none or only half of one."""
        try:
            return self.record(split, trial)
        except NewerFormatError:
            raise
        except StoreError:
            return None

    def adopt(self, other: RunStore) -> None:
        """Take over the other's records that are whole and not here."""
        for path in sorted([*other.root.glob("trials/*/record.json"), *other.root.glob("confirm/*/record.json")]):
            there = self.root / path.relative_to(other.root)
            if not there.is_file():
                _copy_record(path, there, TrialRecord)

    def copy_pages(self, other: RunStore) -> None:
        """Copy what the other was asked, and its results, samples and page, where they differ."""
        for name in _PAGES:
            source, there = other.root / name, self.root / name
            if source.is_file() and not (there.is_file() and file_digest(there) == file_digest(source)):
                write_text(there, source.read_text(encoding="utf-8"))

    def write_trial(self, record: TrialRecord) -> None:
        write_record(self._record_path(record.split, record.trial), record)

    def records(self) -> tuple[TrialRecord, ...]:
        paths = sorted([*self.root.glob("trials/*/record.json"), *self.root.glob("confirm/*/record.json")])
        return tuple(read_record(path, TrialRecord) for path in paths)

    def forget_records(self, keep: Iterable[tuple[Split, str]]) -> None:
        """Drop the records of trials that this run no longer asks for (the confirmation of an earlier choice)."""
        wanted = {self._record_path(split, trial).parent for split, trial in keep}
        for folder in (*self.root.glob("trials/*"), *self.root.glob("confirm/*")):
            if folder not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def _record_path(self, split: Split, trial: str) -> Path:
        folder = "trials" if split is Split.MAIN else "confirm"
        return self.root / folder / trial / "record.json"

    def new_worker(self, job: Job) -> tuple[Path, Path]:
        """Paths of the next worker's job, written, and of its log."""
        folder = self.root / "workers"
        number = 1 + max((int(path.stem) for path in folder.glob("[0-9]*.json")), default=0)
        path = folder / f"{number:03}.json"
        write_record(path, job)
        return path, path.with_suffix(".log")

    @property
    def has_results(self) -> bool:
        return (self.root / "results.json").is_file()

    def parities(self) -> tuple[Parity, ...]:
        """Every ladder from adapter to GGUF that was climbed in this run."""
        return tuple(read_record(path, Parity) for path in sorted((self.root / "parity").glob("*.json")))

    def write_parity(self, label: str, parity: Parity) -> None:
        write_record(self.root / "parity" / f"{label}.json", parity)

    def results(self) -> Results:
        return read_record(self.root / "results.json", Results)

    def write_results(self, results: Results, samples: Iterable[Mapping[str, object]], page: str) -> None:
        """results.json, samples.jsonl and report.html."""
        lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        write_text(self.root / "samples.jsonl", lines)
        write_text(self.report, page)
        write_record(self.root / "results.json", results)


def find_run(path: Path) -> RunStore:
    """The run in directory `path`, or the one whose results.json or report `path` is.

    Raises:
        StoreError: there is no run; the runs that are there are named.
    """
    folder = path if path.is_dir() else path.parent
    if (folder / "run.json").is_file():
        return RunStore(folder)
    known = sorted(str(p.parent) for p in Path("reports/runs").glob("*/run.json"))
    remedy = "Runs here: " + ", ".join(known) if known else "Make one with `harness run SUITE`."
    raise StoreError(f"there is no run in {path}", remedy=remedy)


def open_run(parent: Path, name: str, run_digest: str) -> RunStore:
    """The run called `name` with this digest: where it was begun, else the first free of NAME, NAME-2, NAME-3 ..."""
    number = 1
    while True:
        store = RunStore(parent / (name if number == 1 else f"{name}-{number}"))
        if not store.exists or _digest_of(store) == run_digest:
            return store
        number += 1


def claim_run(folder: Path, run_digest: str) -> RunStore:
    """The run directory that `--output` names: empty, new, or begun with the same inputs.

    Raises:
        StoreError: it holds another run, or something else.
    """
    store = RunStore(folder)
    if folder.is_file():
        raise StoreError(f"{folder} is a file", remedy="Name a directory with --output.")
    if store.exists:
        if _digest_of(store) == run_digest:
            return store
        remedy = "Its suite, grid, model or library versions differ. Name another directory with --output."
        raise StoreError(f"{folder} holds another run", remedy=remedy)
    if folder.is_dir() and not all(_before_manifest(path.name) for path in folder.iterdir()):
        raise StoreError(f"{folder} is not empty and holds no run", remedy="Name a new directory with --output.")
    return store


def _before_manifest(name: str) -> bool:
    """What a run leaves that is killed before it has its run.json."""
    return name in (".lock", "workers") or name.startswith(_PARTIAL)


def _digest_of(store: RunStore) -> str:
    """Cheaper than reading the whole manifest, and does not mind one that an older or newer harness wrote."""
    return cast(str, _read_json(store.root / "run.json").get("digest", ""))
