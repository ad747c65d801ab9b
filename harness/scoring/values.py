"""What may be written as the value of an assertion: the checks that several assertion types share.

Each takes the value as it stands in the file and returns it as the judge takes it, or raises ValueError with what was
wrong in the first line and the remedy in the second. `harness.core.yaml` is imported within functions: it imports
pydantic, which those who only judge stored answers do not need.
"""

from __future__ import annotations

import csv
from pathlib import PurePath
from typing import Any

FILE = "file://"


def text(value: Any) -> str:
    """Accept any text; a number or truth value is the text that stands in the file."""
    from harness.core.yaml import as_written

    found = as_written(value)
    if not isinstance(found, str):
        raise ValueError('needs a text as its value\nWrite value: "..."')
    return found


def filled(value: Any) -> str:
    """Accept a text that is not blank."""
    found = text(value)
    if not found.strip():
        raise ValueError("has an empty value, which would hold for every answer\nFill it in, or remove the assertion.")
    return found


def texts(value: Any) -> list[str]:
    """Accept a list of texts, or one text in which commas separate several."""
    if isinstance(value, str):
        cells = next(csv.reader([value.replace("\n", " ")], skipinitialspace=True), [])
        value = [cell.strip() for cell in cells if cell.strip()]
    if not isinstance(value, list) or not value:
        raise ValueError('needs a list of texts as its value\nWrite value: ["...", "..."]')
    return [filled(item) for item in value]


def nothing(value: Any) -> None:
    """Accept no value."""
    if value is not None:
        raise ValueError("takes no value\nRemove the value.")


def plain(value: Any) -> Any:
    """Convert numbers that remember their spelling into ordinary numbers, also within lists and mappings."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, int) else float(value) if isinstance(value, float) else value


def check_pattern(pattern: str) -> None:
    """Raise ValueError for a text that is not a regular expression."""
    import regex  # 20 ms that suites without patterns need not pay

    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError, ValueError) as problem:
        remedy = "In YAML, put patterns in single quotes: backslashes stay as they are."
        raise ValueError(f"not a regular expression: {problem}\n{remedy}") from None


def from_file(value: Any) -> bool:
    """Whether a value names a file that holds the real value."""
    return isinstance(value, str) and value.startswith(FILE)


def value_from_code(value: Any) -> str:
    """Say that promptfoo would run a file to get this value, which is not supported."""
    is_code = from_file(value) and PurePath(value).suffix in (".js", ".ts", ".py")
    return "with a value from code" if is_code else ""
