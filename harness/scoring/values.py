"""Validate the values of assertions: functions that several assertion types share.

Each function takes the value as it is written in the suite, and returns it as the judge needs it. It raises ValueError
with the mistake in the first line and a remedy in the second line. `harness.core.yaml` is imported within functions,
because it imports pydantic, which is slow and not needed to judge stored answers.
"""

from __future__ import annotations

import csv
import re
from pathlib import PurePath
from typing import Any

FILE = "file://"


def text(value: Any) -> str:
    """Accept any text; a number or truth value becomes the text as it is written in the file."""
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
    """Accept a list of texts, or one text that is split at commas."""
    if isinstance(value, str):
        cells = next(csv.reader([value.replace("\n", " ").replace("\r", " ")], skipinitialspace=True), [])
        value = [cell.strip() for cell in cells if cell.strip()]
    if not isinstance(value, list) or not value:
        raise ValueError('needs a list of texts as its value\nWrite value: ["...", "..."]')
    return [filled(item) for item in value]


def nothing(value: Any) -> None:
    """Accept only a missing value."""
    if value is not None:
        raise ValueError("takes no value\nRemove the value.")


def plain(value: Any) -> Any:
    """Convert YAML numbers, which remember their spelling, into plain numbers, also within lists and mappings."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, int) else float(value) if isinstance(value, float) else value


JAVASCRIPT_ONLY = {
    "[^]": r"[\s\S] for [^]",
    "[]": "(?!) for []",
    "\\u{": r"\U with eight digits, such as \U0001F600, for \u{1F600}",
    "\\c": r"\x with two digits, such as \x01, for \cA",
    "\\k<": "(?P=name) for \\k<name>",
}
"""Parts of patterns that only JavaScript reads, and how to write them here."""


def check_pattern(pattern: str) -> None:
    """Raise ValueError for a text that is not a regular expression."""
    import regex  # takes 20 ms, which suites without patterns save

    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError, ValueError) as problem:
        remedy = "In YAML, put patterns in single quotes: backslashes stay as they are."
        for other, ours in JAVASCRIPT_ONLY.items():
            if other in pattern:
                remedy = f"Patterns have Python's syntax: write {ours}."
        raise ValueError(f"not a regular expression: {problem}\n{remedy}") from None


def misnamed(name: str, text: str, file: str) -> str:
    """Describe a function whose name stands nowhere in the text of its file; else return an empty text."""
    if re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text):
        return ""
    return f"names the function {name}, which is not in {file}\nCorrect the name, or write the function."


def from_file(value: Any) -> bool:
    """Whether a value refers to a file that holds the actual value."""
    return isinstance(value, str) and value.startswith(FILE)


def value_from_code(value: Any) -> str:
    """Describe a value that promptfoo would compute from a file, which is not supported; else return an empty text."""
    is_code = from_file(value) and PurePath(value).suffix in (".js", ".ts", ".py")
    return "with a value from code" if is_code else ""
