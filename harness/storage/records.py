"""Write and read dataclasses as JSON: files with a format version, and lines that are sent between processes."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.core.errors import NewerFormatError, StoreError, UnreadableFileError
from harness.core.formats import FORMAT
from harness.core.hashing import plain
from harness.storage.files import read_text, write_text
from harness.storage.upgrades import newest, upgraded

T = TypeVar("T")
_SEAL = "sha256"
"""Key of a sealed file's digest."""
_REDO = "Restore the file, or delete it and run `harness run` again: it redoes only what is missing."


def write_record(
    path: Path, value: object, *, sealed: bool = False, durable: bool = True, indent: int | None = 1
) -> None:
    """Write a dataclass as a JSON file with a format version: its own field `format` if it has one, else FORMAT.

    A sealed file also holds a digest of its content, so that `read_record` refuses it if it was changed since.
    `write_text` explains `durable`. Without an indentation, Python encodes JSON several times faster.
    """
    data = {"format": FORMAT, **plain(value)}
    if sealed:
        data[_SEAL] = _seal(json.loads(json.dumps(data, default=plain)))
    write_text(path, json.dumps(data, default=plain, ensure_ascii=False, indent=indent) + "\n", durable=durable)


def read_record(path: Path, kind: type[T]) -> T:
    """Read a dataclass of type `kind` from a file that `write_record` wrote.

    Raises:
        NewerFormatError: a newer version of the harness wrote the file.
        StoreError: the file is missing or damaged.
    """
    return decode(read_json(path), kind, path)


def _seal(data: dict[str, Any]) -> str:
    """Return the digest of a file's content. Unpaired surrogates are replaced, as `write_text` replaces them."""
    text = json.dumps(data, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        UnreadableFileError: the system refuses to read the file.
        StoreError: the file is missing or damaged.
    """
    try:
        data = json.loads(read_text(path))
    except FileNotFoundError:
        raise StoreError(f"there is no file {path}", remedy="Check the path. `harness run` creates runs.") from None
    except NotADirectoryError:
        raise StoreError(f"{path.parent} is not a directory", remedy="Name the directory of a run.") from None
    except OSError as error:
        remedy = "Name another file, or get permission to read it."
        raise UnreadableFileError(f"cannot read {path}: {error.strerror or error}", remedy=remedy) from None
    except RecursionError:
        raise damaged(path, "it is nested too deeply") from None
    except ValueError as error:  # such as invalid UTF-8 or invalid JSON
        raise damaged(path, str(error)) from None
    if not isinstance(data, dict):
        raise damaged(path, "it does not hold a JSON object")
    return data


def damaged(path: Path, what: str) -> StoreError:
    """Return the error for a damaged file; `what` describes the damage."""
    return StoreError(f"{path} is damaged: {what}", remedy=_REDO)


def decode(data: dict[str, Any], kind: type[T], path: Path) -> T:
    """Convert the JSON object of a file, which may have an older format, to a dataclass of type `kind`.

    Raises:
        NewerFormatError: a newer version of the harness wrote the file.
        StoreError: the object has no format version, or does not fit the dataclass `kind`.
    """
    version = data.get("format")
    if not isinstance(version, int):
        raise damaged(path, "it has no format version")
    if version > newest(kind):
        message = f"{path} has format {version}, and this version of the harness reads formats up to {newest(kind)}"
        raise NewerFormatError(message, remedy="Upgrade the harness: in its checkout, `git pull && pip install .`")
    if (seal := data.pop(_SEAL, None)) is not None and seal != _seal(data):
        raise damaged(path, "it was changed after it was written")
    try:
        value: T = _validated(kind, json.dumps(upgraded(data, kind)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise damaged(path, f"{where}: {first['msg']}") from None
    return value


def _validated(kind: Any, text: str) -> Any:
    return _adapter(kind).validate_json(text)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


class Checked(Protocol):
    """A record with a method that raises ValueError unless its parts fit together."""

    def check(self) -> None: ...


C = TypeVar("C", bound=Checked)


def checked(record: C, path: Path) -> C:
    """Return the record of a file after checking that its parts fit together.

    Raises:
        StoreError: they do not.
    """
    try:
        record.check()
    except ValueError as error:
        raise damaged(path, str(error)) from None
    return record


def decode_line(text: str, kind: type[T]) -> T:
    """Read a dataclass from a line of JSON that a worker process sent."""
    value: T = _validated(kind, text)
    return value


def encode_line(value: object) -> str:
    """Return a value as one line of JSON. An unpaired surrogate is replaced by a question mark."""
    return json.dumps(value, default=plain, ensure_ascii=False).encode("utf-8", errors="replace").decode()


def copy_record(source: Path, target: Path, kind: type[Any]) -> None:
    """Copy the sealed file of a record of type `kind`. Do nothing if the file is missing or damaged."""
    try:
        value = read_record(source, kind)
    except NewerFormatError:
        raise
    except (StoreError, OSError):
        return
    write_record(target, value, sealed=True)
