"""Find the files that a suite names: by a path relative to its folder, or by a pattern such as `prompts/*.txt`."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import SuiteError
from harness.core.yaml import Document, shown
from harness.scoring.values import FILE
from harness.suites.case_files import Read, outside, read_referenced, reader, with_whole_characters
from harness.suites.notices import UnsupportedError

MAX_FOUND = 10_000
MAX_ANY_FOLDERS = 2
"""Largest number of `**` in a pattern. A tree is walked again from each folder that one of them fits."""
REPEATED = re.compile(r"(\*\*/)+")
PATTERN = re.compile(r"[*?]|\[[^\]]+\]")
BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
CODE = frozenset({".js", ".cjs", ".mjs", ".ts", ".cts", ".mts", ".py", ".rb", ".go"})
ELSEWHERE = re.compile(r"[a-z]+://")

Match = Callable[[str], list[str]]
"""Returns the names of the files that fit a pattern, in order; an empty list for none."""


@dataclass(frozen=True)
class Files:
    """The files of a suite. Names are relative to the suite's folder."""

    read: Read
    match: Match = lambda _pattern: []

    def text(self, name: str, document: Document, location: tuple[str | int, ...] = ()) -> str:
        """Return the text of a file that `document` names at `location`; raise `SuiteError` if it cannot be read."""
        return read_referenced(name, self.read, document, location)

    def referenced(self, name: str, at: Document) -> str:
        """Return the text of a file that a `$ref` names, with the escapes of JSON as YAML has them."""
        text = self.text(name, at)
        return with_whole_characters(text) if name.lower().endswith(".json") else text

    def fitting(self, pattern: str, document: Document, location: tuple[str | int, ...] = ()) -> list[str]:
        """Return the names of the files that fit a pattern; raise `SuiteError` if it leads out of the folder."""
        try:
            return self.match(pattern)
        except SuiteError as problem:
            raise document.wrong(problem.message, problem.remedy, location) from None


def files_in(folder: Path, root: Path | None = None) -> Files:
    """Return the files in a suite's folder. With `root`, files elsewhere in that folder can be named, too."""
    return Files(reader(folder, root), lambda pattern: _matching(folder, root, pattern))


def _matching(folder: Path, root: Path | None, pattern: str) -> list[str]:
    if Path(pattern).is_absolute() or "\x00" in pattern or (".." in Path(pattern).parts and root is None):
        raise outside(pattern, root)
    pattern = REPEATED.sub("**/", pattern)
    if pattern.count("**") > MAX_ANY_FOLDERS:
        raise SuiteError(f"{shown(pattern)} has more than {MAX_ANY_FOLDERS} times **", remedy="Name fewer folders.")
    limit = (root or folder).resolve()
    found: set[str] = set()
    for alternative in _alternatives(pattern):
        for name in glob.iglob(alternative, root_dir=folder, recursive=True):  # noqa: PTH207 - pathlib follows no ..
            path = folder / name
            if path.is_file() and path.resolve().is_relative_to(limit):
                found.add(str(Path(name)))
            if len(found) > MAX_FOUND:
                raise SuiteError(f"{shown(pattern)} fits more than {MAX_FOUND:,} files", remedy="Name fewer files.")
    return sorted(found)


def _alternatives(pattern: str) -> list[str]:
    """Expand braces: `{a,b}.txt` is `a.txt` and `b.txt`."""
    braces = BRACES.search(pattern)
    if braces is None or pattern.count("{") > 4:
        return [pattern]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [one for choice in braces[1].split(",") for one in _alternatives(before + choice + after)]


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern that may fit several files."""
    return PATTERN.search(name) is not None


def local_name(reference: str) -> str:
    """Return the name of the file that a reference such as `file://a.txt` or `a.txt` names.

    Raises UnsupportedError for code, and for files that are not on this machine.
    """
    name = reference.removeprefix(FILE)
    if ELSEWHERE.match(name):
        raise UnsupportedError("files on the internet")
    if not CODE.isdisjoint((Path(name).suffix, Path(name.rpartition(":")[0]).suffix)):
        raise UnsupportedError("values from code")
    return name.removeprefix("./")
