"""Baseline files, formatted for version control: a change of one answer changes one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import NewerFormatError, StoreError
from harness.core.formats import FORMAT
from harness.core.hashing import digest
from harness.core.regression import Baseline
from harness.core.settings import Settings
from harness.storage.files import check_no_link, write_text
from harness.storage.records import checked, damaged, decode, encode_line, read_json

_WIDTH = 160
"""Maximum number of characters of a line, with its indentation. Only a line with a single long value may be longer."""


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline as JSON. Lists and objects that fit on one line are on one line; default values are left out."""
    # The file cannot contain unpaired surrogates. Converting to text and back replaces them before the digest is made.
    check_no_link(path.parent)
    data = json.loads(encode_line(_slim(baseline)))
    data["digest"] = _content_digest(data)
    write_text(path, _folded(data) + "\n")


def read_baseline(path: Path) -> Baseline:
    """Read a baseline from a file.

    Raises:
        NewerFormatError: a newer version of the harness wrote the file.
        StoreError: the file is missing or damaged, or was edited by hand.
    """
    remedy = "Restore it (for example, from git), or create it again with `harness bless`."
    try:
        data = read_json(path)
        if data.get("digest") != _content_digest(data) and _version_of(data) <= FORMAT:
            raise damaged(path, "its content does not match its digest, so it was edited")
        return checked(decode(data, Baseline, path), path)
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
    """Convert dataclasses to values for `json`. Fields with default values are left out, except in `Settings`."""
    if is_dataclass(value):
        whole = isinstance(value, Settings)
        parts = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: _slim(part) for field, part in parts if whole or part != _default(field)}
    if isinstance(value, Mapping):
        return {name: _slim(part) for name, part in value.items()}
    return [_slim(part) for part in value] if isinstance(value, tuple | list) else value


def _default(field: Field[Any]) -> Any:
    """Return a field's default, or MISSING if the field has no default. No field's value equals MISSING."""
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
