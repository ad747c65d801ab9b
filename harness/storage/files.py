"""Files and folders that appear whole or not at all, and errors that say what to do."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from harness.core.errors import RunInUseError, StoreError

PARTIAL = ".partial-"


_TO_SPARE = 10**9
"""Bytes that must stay free on the disk after a large write, for records and logs."""


_FULL = (errno.ENOSPC, errno.EDQUOT)


_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR)


_ELSEWHERE = {errno.EISDIR: "Name a file, not a directory.", errno.ENAMETOOLONG: "Give it a shorter name."}
"""Remedies for particular system errors. For all others, writing to another place helps."""


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file in the same directory, so that a reader sees either the old text or the new one.

    Raises:
        StoreError: the disk is full, or the path cannot be written.
    """
    partial = path.parent / f"{PARTIAL}{uuid.uuid4().hex}"  # not `with_name`: `.` and `/` have no name to replace
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


@contextmanager
def locked(path: Path, message: str, remedy: str) -> Iterator[None]:
    """Hold a lock until the block or the process ends; raise an error with `message` if another process holds it."""

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


def move(member: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    if member.is_dir():
        shutil.rmtree(final, ignore_errors=True)
    with suppress(FileExistsError):  # another run has written the same entry in the meantime
        _rename(member, final)


def sync(folder: Path, *, deep: bool = True) -> None:
    """Flush a folder's list of names to the disk, and with `deep` also everything in it."""
    for path in (folder, *(folder.rglob("*") if deep else ())):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, and rename it to `final` when the block ends."""
    partial = final.with_name(f"{PARTIAL}{uuid.uuid4().hex}")
    with writing(final):
        try:
            partial.mkdir(parents=True)
            yield partial
            move(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def copy_folder(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith(PARTIAL):
            shutil.copyfile(path, target / path.name)
            with (target / path.name).open("rb") as copied:
                os.fsync(copied.fileno())


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


def _rename(folder: Path, final: Path) -> None:
    try:
        os.replace(folder, final)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(error.errno, error.strerror, str(final)) from error
        raise
