"""A file that a person wrote, as text."""

from __future__ import annotations

from pathlib import Path

from harness.errors import HarnessError, Place
from harness.yamltext.document import MAX_CHARACTERS

MAX_ROWS = 64 * 1024 * 1024
"""Bytes of a file that is not YAML: cases and training rows."""


def read_text(path: Path, name: str, error: type[HarnessError]) -> str:
    """The text of a regular UTF-8 file of bearable size, called `name` in errors; or FileNotFoundError."""
    limit = MAX_CHARACTERS if path.suffix in (".yaml", ".yml") else MAX_ROWS
    try:
        # A pipe or a device would never end.
        if not path.is_file():
            raise FileNotFoundError(name)
        if path.stat().st_size > limit:
            raise error(f"is larger than {limit // 1024**2} MiB", remedy="Split it.", place=Place(name))
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = problem.object[: problem.start].count(b"\n") + 1
        raise error("is not UTF-8 text", remedy="Save it with the encoding UTF-8.", place=Place(name, line)) from None
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as problem:
        raise error(f"cannot be read: {problem}", place=Place(name)) from None
