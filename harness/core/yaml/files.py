"""Read text files that users wrote."""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import HarnessError, Place
from harness.core.yaml.document import MAX_CHARACTERS

MAX_ROWS = 64 * 1024 * 1024
"""Largest accepted size, in bytes, of a file of cases or training rows that is not YAML."""


def read_text(path: Path, name: str, error: type[HarnessError]) -> str:
    """Read a regular UTF-8 file of limited size. Error messages call the file `name`.

    Raises:
        FileNotFoundError: there is no such file.
        HarnessError: of type `error`, if the file is too large, not UTF-8 or cannot be read.
    """
    return decoded(read_bytes(path, name, error), name, error)


def read_bytes(path: Path, name: str, error: type[HarnessError]) -> bytes:
    """Read a regular file of limited size. Error messages call the file `name`.

    Raises:
        FileNotFoundError: there is no such file.
        HarnessError: of type `error`, if the file is too large or cannot be read.
    """
    limit = MAX_CHARACTERS if path.suffix in (".yaml", ".yml") else MAX_ROWS
    try:
        # Reading a pipe or a device might never end.
        if not path.is_file():
            if path.exists() and not path.is_dir():
                raise error("is not a regular file", remedy="Replace it by a file.", place=Place(name))
            raise FileNotFoundError(name)
        if path.stat().st_size > limit:
            raise error(f"is larger than {limit // 1024**2} MiB", remedy="Split the file.", place=Place(name))
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as problem:
        raise error(f"cannot be read: {problem}", place=Place(name)) from None


def decoded(data: bytes, name: str, error: type[HarnessError]) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark.

    Raises:
        HarnessError: of type `error`, with the first line that is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = problem.object[: problem.start].count(b"\n") + 1
        raise error("is not UTF-8 text", remedy="Save the file as UTF-8.", place=Place(name, line)) from None
