"""The replies of judges and the similarities of texts, which are stored like answers, so that nothing is asked twice.

Each reply is written as soon as it arrives: into the cache, which all runs share. When a run is scored, the replies
that it uses are also written into its directory, so that a copy of the directory can be scored again.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.errors import UnreadableFileError
from harness.core.hashing import digest
from harness.core.judges import Reply, embedder
from harness.core.suite import JudgeRef, Suite
from harness.storage.files import read_text, write_text, writing
from harness.storage.records import decode_line, encode_line

FOLDER = "verdicts"
"""The folder of the replies, in the cache and in a run directory."""


def source_of(model: JudgeRef | str) -> str:
    """Return the key of a judge, or of an embedding model by its name."""
    if isinstance(model, str):
        return digest({"embedder": model})
    return digest({"judge": model.model, "base_url": model.base_url, "digest": model.digest})


@dataclass
class VerdictStore:
    """The replies of one model. `source` is its key, and `folders` are the cache and the run directory."""

    source: str
    cache: Path | None
    run: Path | None
    _file: Path | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def known(self) -> dict[str, Reply]:
        """Return all stored replies by the key of the question; the newest, if a question was asked again.

        Damaged lines, as of a killed process, are left out.
        """
        paths = sorted((self.cache / FOLDER / self.source).glob("*.jsonl"), key=_written) if self.cache else []
        return {reply.key: reply for path in (*self._in_run, *paths) for reply in _replies(path)}

    def add(self, reply: Reply) -> None:
        """Write a reply into the cache, and wait until it is on the disk. Several threads may call it.

        Raises:
            StoreError: the disk is full, or the cache cannot be written.
        """
        if self.cache is None:
            return
        with self._lock:
            # A file of its own for each process, since two runs may ask the same judge at the same time.
            self._file = self._file or self.cache / FOLDER / self.source / f"{uuid.uuid4().hex}.jsonl"
        with writing(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # No thread waits for another one's disk: what is written stays, even if the process is killed at once.
            file = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                left = memoryview((encode_line(reply) + "\n").encode())
                while left:
                    left = left[os.write(file, left) :]
                os.fsync(file)
            finally:
                os.close(file)

    def keep(self, used: Iterable[Reply]) -> None:
        """Write the replies that a run uses into its directory.

        Raises:
            StoreError: the disk is full, or the directory cannot be written.
        """
        lines = [encode_line(reply) for reply in sorted(used, key=lambda reply: reply.key)]
        for path in self._in_run if lines else ():
            write_text(path, "\n".join([*lines, ""]))

    @property
    def _in_run(self) -> list[Path]:
        return [self.run / FOLDER / f"{self.source}.jsonl"] if self.run else []


def sources(suite: Suite) -> tuple[str, ...]:
    """Return the keys of the models whose replies the scores of a suite may need."""
    return (*([source_of(suite.judge)] if suite.judge else []), source_of(embedder(suite)))


def copy_verdicts(source: Path, target: Path, models: Iterable[str]) -> None:
    """Copy the replies of these models from one cache to another: files that are missing there, or shorter.

    A file only grows, and only the process that named it writes into it. Files that cannot be read are left out. The
    time of the last change is kept, since the newest reply to a question counts.

    Raises:
        StoreError: the disk is full, or the cache cannot be written.
    """
    for model in models:
        for path in sorted((source / FOLDER / model).glob("*.jsonl")):
            copy = target / FOLDER / model / path.name
            if _size(copy) >= _size(path):
                continue
            try:
                text, changed = read_text(path), path.stat().st_mtime_ns
            except (OSError, UnicodeDecodeError):
                continue
            write_text(copy, text)
            with suppress(OSError):  # some folders of other machines have no times
                os.utime(copy, ns=(changed, changed))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


def _written(path: Path) -> tuple[int, str]:
    """Return when a file was written; 0 if another command deleted it."""
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def _replies(path: Path) -> list[Reply]:
    try:
        lines = read_text(path).split("\n")  # not splitlines, which also splits at U+2028
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        return []
    except OSError as error:
        remedy = "Get permission to read it, or delete it: the questions are then asked again."
        raise UnreadableFileError(f"cannot read {path}: {error.strerror or error}", remedy=remedy) from None
    return [reply for line in lines if (reply := _reply(line))]


def _reply(line: str) -> Reply | None:
    try:
        return decode_line(line, Reply)
    except ValueError:
        return None
