"""Atomic writes of files and folders, locks, and errors of the file system with a remedy."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from harness.core.errors import RunInUseError, StoreError

PARTIAL = ".partial-"
"""Prefix of the names of temporary files and folders."""
_RESERVE = 10**9
"""Bytes that must stay free on the disk after a large write, for records and logs."""
_LARGEST = 2**30
"""Largest file that is read as one text, in bytes. The results of 1,000 trials have a few hundred MB at most."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_A_FOLDER = (errno.EEXIST, errno.ENOTDIR)
_REMEDIES = {
    errno.EISDIR: "Name a file, not a directory.",
    errno.ENAMETOOLONG: "Give it a shorter name.",
    errno.ENOTSUP: "Name a regular file.",
}
"""Remedies for particular system errors. The remedy for all other errors is to write to another place."""
_FREE_SPACE = "Free some space (`harness clean` shows what the cache holds), then run the same command again."


def read_text(path: Path) -> str:
    """Read a regular UTF-8 file. A pipe or a device is not read, because reading it might never end.

    Raises:
        OSError: the file is missing, not regular or larger than 1 GiB, or the system refuses to read it.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if found.st_size > _LARGEST:
            raise OSError(errno.EFBIG, f"it is larger than {_LARGEST >> 30} GiB", str(path))
        return file.read().decode("utf-8")


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; if it is a pipe, without waiting for a program that writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text file atomically, through a temporary file, so that readers see either the old or the new text.

    The text is flushed to the disk, so that it also survives a power failure, unless `durable` is False.

    Raises:
        StoreError: the disk is full, or the path cannot be written.
    """
    partial = path.parent / f"{PARTIAL}{uuid.uuid4().hex}"  # not `with_name`: `.` and `/` have no name to replace
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():  # renaming a file to /dev/null would replace the device for everybody
            raise OSError(errno.ENOTSUP, "it is a device or a pipe")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # YAML, JSON and models can produce unpaired surrogates, which UTF-8 cannot hold.
            with partial.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def is_free(path: Path, text: str) -> bool:
    """Whether a text can be written to a path without changing another file: there is none, or it has this text."""
    if not path.exists() and not path.is_symlink():
        return True
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert system errors in the block, which writes `path` or files in it, to a `StoreError` with a remedy."""
    try:
        yield
    except Exception as error:
        if is_full(error):
            raise StoreError(f"the disk is full: could not write {path}", remedy=_FREE_SPACE) from error
        if not isinstance(error, OSError):
            raise
        if error.errno is None:  # raised by a library, not by the operating system
            raise
        why = "there is a file where a folder is needed" if error.errno in _NOT_A_FOLDER else error.strerror
        remedy = _REMEDIES.get(error.errno, "Name another place, or get permission to write there.")
        raise StoreError(f"cannot write {path}: {why}", remedy=remedy) from error


def is_full(error: BaseException) -> bool:
    """Whether an error means that the disk is full.

    safetensors raises its own type of exception, whose message contains the system's error number.
    """
    number = getattr(error, "errno", None)
    return number in _DISK_FULL or any(f"(os error {full})" in str(error) for full in _DISK_FULL)


@contextmanager
def locked(path: Path, message: str, remedy: str, *, patience: float = 0) -> Iterator[None]:
    """Hold a file lock until the block or the process ends. `patience` is how many seconds to wait for the lock.

    Raises:
        RunInUseError: another process holds the lock; the error has the given message and remedy.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)  # kept in a variable: a lock object releases the lock when it is garbage-collected
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            raise RunInUseError(message, remedy=remedy) from None
    try:
        yield
    finally:
        lock.release()


def move(source: Path, final: Path) -> None:
    """Rename a file or folder to its final path. An older folder at that path is replaced."""
    final.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.rmtree(final, ignore_errors=True)
    with suppress(FileExistsError):  # another process has written the same folder in the meantime
        _rename(source, final)


def _rename(source: Path, final: Path) -> None:
    """Rename a file or folder; raise FileExistsError if `final` is a folder that is not empty."""
    try:
        os.replace(source, final)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(error.errno, error.strerror, str(final)) from error
        raise


def sync(folder: Path, *, deep: bool = True) -> None:
    """Flush the list of a folder's files to the disk and, if `deep`, also all files and folders in it."""
    for path in (folder, *(folder.rglob("*") if deep else ())):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield a temporary folder, and rename it to `final` when the block ends without an error."""
    partial = final.with_name(f"{PARTIAL}{uuid.uuid4().hex}")
    with writing(final):
        try:
            partial.mkdir(parents=True)
            yield partial
            move(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copy the files of a folder, without subfolders and temporary files, and flush them to the disk."""
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith(PARTIAL):
            shutil.copyfile(path, target / path.name)
            with (target / path.name).open("rb") as copied:
                os.fsync(copied.fileno())


def check_no_link(folder: Path) -> None:
    """Check that a folder whose content is replaced or deleted is no link: an unpacked archive may hold any link.

    Raises:
        StoreError: it is a link.
    """
    if folder.is_symlink():
        remedy = "Delete the link. To keep these files on another disk, move the whole folder that contains it."
        raise StoreError(f"{folder} is a link to another folder", remedy=remedy)


def check_room(path: Path, size: int) -> None:
    """Check that the disk has space for `size` bytes at `path`, whether `path` exists or not.

    Raises:
        StoreError: the disk has too little space.
    """
    existing = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < size + _RESERVE:
        needed = f"{path} needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        raise StoreError(f"the disk has too little space: {needed}", remedy=_FREE_SPACE)
