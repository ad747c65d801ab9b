"""Digests of values and files: equal content has the same digest in every process."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from harness.core.settings import Settings


def digest(value: object) -> str:
    """Return the first 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, default=_identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _identity(value: object) -> Any:
    """Convert a value as `plain` does, but leave out training settings that were added later and have their default.

    Digests therefore stay the same when the harness gets a new setting.
    """
    return value.identity() if isinstance(value, Settings) else plain(value)


def plain(value: object) -> Any:
    """Convert a value that `json` cannot write. Only the outermost level is converted.

    pydantic could convert all levels at once, but it fails at an unpaired surrogate in a key.
    """
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return to_jsonable_python(value)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
