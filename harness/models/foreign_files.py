"""Read the files of models and adapters that somebody else made: the only place that opens them for the harness.

A file is read only if it is a regular file of a sensible size. A link must not lead out of its folder, since it could
name a private file or a device. JSON must be an object of limited depth, with numbers of limited length. Everything
else is a damaged file: a `ModelError` that names the file.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any

from harness.core.errors import HarnessError, ModelError

MIB = 2**20
_SMALL = 4 * MIB
"""Largest size of a configuration or a chat template. Those of published models have less than 100 KiB."""
_VOCABULARY = 64 * MIB
"""Largest size of a tokenizer's files and of an index of weights, about twice that of the largest published ones."""
_VOCABULARIES = ("tokenizer.json", "tokenizer*.model", "*.tiktoken", "vocab*", "merges.txt", "*.index.json")
_CONFIGS = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "adapter_config.json", "preprocessor_config.json", "processor_config.json"),
    *("chat_template.json", "chat_template.jinja"),
)
_LOADED = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.safetensors", "additional_chat_templates/*")
"""Files of a model's folder that a library can open by itself."""
_MOST_FILES = 2_000
"""Largest number of entries in a model's folder. The largest published models have a few hundred shards."""
_DEEPEST = 64
_LONGEST_NUMBER = 400
"""Digits of the longest number: the largest 64-bit float has 309."""
FETCH_AGAIN = "Download or copy the model again."
_REAL_FILE = "Replace it by the file itself: a model's files are regular files, or links to files in the same folder."


def read_text(path: Path) -> str:
    """Return the text of a foreign file.

    Raises:
        ModelError: it is no regular file, too large, not UTF-8, or cannot be read.
    """
    try:
        return _read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, str(error)) from None


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a foreign file.

    Raises:
        ModelError: as `read_text`, or the text is no JSON object, or nested too deeply, or has too long a number.
    """
    try:
        found = json.loads(read_text(path), parse_int=_whole, parse_float=_real)
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from None
    if not isinstance(found, dict):
        raise damaged(path, "it does not hold a JSON object")
    if _depth(found) > _DEEPEST:
        raise damaged(path, f"it is nested more than {_DEEPEST} levels deep")
    return found


def read_optional(path: Path) -> dict[str, Any]:
    """Return the JSON object in a foreign file, or an empty dictionary if there is no such file.

    Raises:
        ModelError: as `read_object`.
    """
    return read_object(path) if os.path.lexists(path) else {}


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in a safetensors file by their names. Only its header is read.

    Raises:
        ModelError: it is no regular file, or its header is damaged or does not fit the file's size.
    """
    from safetensors import SafetensorError, safe_open

    check_regular(path)
    try:
        with safe_open(path, framework="numpy") as tensors:
            names = list(tensors.keys())
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, str(error)) from None


def check_folder(folder: Path) -> None:
    """Check the files of a model's folder that a library can open: regular files of sensible sizes, readable JSON.

    Folders in it are ignored.

    Raises:
        ModelError: a file is something else, or there are too many.
    """
    with os.scandir(folder) as entries:
        count = sum(1 for _ in islice(entries, _MOST_FILES + 1))
    if count > _MOST_FILES:
        remedy = "Copy the model's own files into a folder of their own, and give that folder."
        raise ModelError(f"{folder} has more than {_MOST_FILES:,} files, and no model has so many", remedy=remedy)
    for path in sorted({path for pattern in _LOADED for path in folder.glob(pattern)}):
        if path.is_dir() and not path.is_symlink():
            continue
        check_regular(path)
        if _matches(path, _CONFIGS) or path.name.endswith(".index.json"):
            read_object(path) if path.suffix == ".json" else read_text(path)
        elif _matches(path, _VOCABULARIES):
            _check_size(path, path.stat().st_size)


def check_regular(path: Path) -> None:
    """Check that a path is a regular file, or a link to one in the same folder or in the Hub's cache.

    Raises:
        ModelError: it is a folder, a pipe, a device or a socket, or a link that leaves the folder, or it is missing.
    """
    try:
        target, mode = path.resolve(strict=True), path.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise _unreadable(path, error) from None
    if path.is_symlink() and not any(target.is_relative_to(folder) for folder in _homes(path)):
        raise ModelError(f"{path} is a link to {target}, outside its folder", remedy=_REAL_FILE)
    if not stat.S_ISREG(mode):
        raise ModelError(f"{path} is not a regular file", remedy=_REAL_FILE)


def is_plain_file(path: Path) -> bool:
    """Whether a path is a regular file that may be read, or a link to one that may be."""
    try:
        check_regular(path)
    except ModelError:
        return False
    return True


@contextmanager
def refusing(what: str, remedy: str, *, passed: Callable[[Exception], bool] = lambda _: False) -> Iterator[None]:
    """Convert every error that a library raises in the block for foreign files to a `ModelError`, panics of Rust too.

    `what` is the start of its message. Errors of the harness and those for which `passed` is true are raised unchanged.
    """
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or passed(error):
            raise
        raise ModelError(f"{what}: {_first_line(error)}", remedy=remedy) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{what}: {_first_line(error)}", remedy=remedy) from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def damaged(path: Path, what: str) -> ModelError:
    """Return the error for a damaged file; `what` describes the damage."""
    return ModelError(f"{path} is damaged: {what}", remedy=FETCH_AGAIN)


def _homes(path: Path) -> Iterator[Path]:
    """Yield the folders in which a link's target may lie. The Hub's cache links `snapshots/COMMIT` to `blobs`."""
    folder = path.parent.resolve()
    yield folder
    if folder.parent.name == "snapshots":
        yield folder.parent.parent / "blobs"


def _read(path: Path) -> bytes:
    check_regular(path)
    try:
        # O_NONBLOCK: if the file was replaced by a pipe since it was checked, opening it does not wait for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            _check_size(path, os.fstat(file.fileno()).st_size)
            return file.read(_limit(path) + 1)
    except OSError as error:
        raise _unreadable(path, error) from None


def _check_size(path: Path, size: int) -> None:
    if size > _limit(path):
        raise damaged(path, f"it has {size / MIB:.0f} MiB, and at most {_limit(path) // MIB} are read")


def _limit(path: Path) -> int:
    return _VOCABULARY if _matches(path, _VOCABULARIES) else _SMALL


def _matches(path: Path, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path.name, pattern) for pattern in patterns)


def _unreadable(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", remedy=FETCH_AGAIN)


def _whole(digits: str) -> int:
    return int(_short(digits))


def _real(digits: str) -> float:
    value = float(_short(digits))
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits} is too large")
    return value


def _short(digits: str) -> str:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number has {len(digits)} characters, and at most {_LONGEST_NUMBER} are read")
    return digits


def _depth(value: object) -> int:
    """Return how many levels of objects and lists are nested, without recursion."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list) and each]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, Mapping) else each)]
    return depth
