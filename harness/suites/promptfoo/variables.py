"""Read `vars`: a list of texts makes a case for each, a file is read, and a variable may name other variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice, product
from pathlib import PurePath
from typing import Any

from harness.core import javascript
from harness.core.errors import HarnessError, SuiteError
from harness.core.yaml import Document, parse_yaml, shown
from harness.scoring.values import FILE
from harness.suites.notices import UnsupportedError
from harness.suites.promptfoo.files import Files, is_pattern, local_name

MAX_COMBINATIONS = 10_000
MAX_RESOLVED = 256 * 1024
PASSES = 5
"""Number of times that promptfoo replaces variables within variables."""
NAMED = re.compile(r"\{\{\s*(\w+)\s*\}\}", re.ASCII)
IMAGES = "jpg jpeg png gif bmp webp svg tif tiff ico avif heic heif"
OTHER_MEDIA = "mp4 webm ogg mov avi wmv mkv m4v wav mp3 m4a aac flac opus pdf"
NO_TEXT = frozenset(f".{name}" for name in f"{IMAGES} {OTHER_MEDIA}".split())
"""Files whose content promptfoo sends as data, or reads with another program."""


def combinations(variables: Mapping[str, Any], files: Files, document: Document) -> Iterator[dict[str, Any]]:
    """Yield every combination of values: of each list of texts and each pattern of files, one value at a time.

    Raises:
        ValueError: there are too many, or no file fits a pattern. The second line of the message is the remedy.
        UnsupportedError: a variable comes from code.
    """
    choices = [list(_choices(name, value, files, document)) for name, value in variables.items()]
    found = list(islice(product(*choices), MAX_COMBINATIONS + 1))
    if len(found) > MAX_COMBINATIONS:
        raise ValueError(f"the lists under vars make more than {MAX_COMBINATIONS:,} cases\nMake them shorter.")
    yield from (dict(zip(variables, values, strict=True)) for values in found)


def _choices(name: str, value: Any, files: Files, document: Document) -> list[Any]:
    if isinstance(value, list) and value and isinstance(value[0], str):
        return value
    if isinstance(value, str) and value.startswith(FILE) and is_pattern(value):
        found = files.fitting(local_name(value), document, ("vars", name))
        if not found:
            raise ValueError(f"no file fits {shown(value)}, the value of {name}\nPaths are relative to the suite.")
        return [FILE + one for one in found]
    return [value]


def resolved(
    variables: Mapping[str, Any], files: Files, document: Document, attacked: str | None = None
) -> dict[str, Any]:
    """Return variables with files read, and with `{{name}}` replaced in texts that name other variables.

    A line feed at the end of a text is removed, as promptfoo does, unless the variable holds an attack (`attacked`).

    Raises:
        SuiteError: a file cannot be read.
        UnsupportedError: a file is code, or no text.
        ValueError: a text becomes too long. The second line of the message is the remedy.
    """
    found = {name: _loaded(name, value, files, document) for name, value in variables.items()}
    for name, value in found.items():
        if isinstance(value, str) and name != attacked:
            found[name] = value.removesuffix("\n")
    for _ in range(PASSES):
        if not _replace_once(found):
            break
    return found


def _replace_once(variables: dict[str, Any]) -> bool:
    """Replace the first `{{name}}` of every text by the text of that variable. Return whether any was replaced."""
    changed = False
    for name, value in variables.items():
        named = NAMED.search(value) if isinstance(value, str) and "{{" in value else None
        if named is None or named[1] not in variables:
            continue
        other = variables[named[1]]
        inserted = "null" if other is None else javascript.text(other)
        if len(value) + len(inserted) > MAX_RESOLVED:
            raise ValueError(f"the variable {name} is longer than {MAX_RESOLVED} characters\nShorten it.")
        variables[name] = javascript.replace_first(value, named[0], inserted)
        changed = True
    return changed


def _loaded(name: str, value: Any, files: Files, document: Document) -> Any:
    if not isinstance(value, str) or not value.startswith((FILE, "package:")):
        return value
    if value.startswith("package:"):
        raise UnsupportedError("variables from code")
    try:
        file = local_name(value)
    except UnsupportedError:
        raise UnsupportedError("variables from code") from None
    suffix = PurePath(file).suffix.lower()
    if suffix in NO_TEXT:
        raise UnsupportedError("variables that are no text")
    text = files.text(file, document, ("vars", name))
    if suffix not in (".yaml", ".yml"):
        return javascript.trim(text)
    try:
        return javascript.to_json(parse_yaml(text, file, SuiteError).value)
    except (HarnessError, RecursionError):
        raise UnsupportedError("variables in YAML that is not plain") from None
