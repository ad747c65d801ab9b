"""`harness new`: make a suite from a file of questions and answers.

read_rows      rows of a file -> training rows, and rewordings of their questions
write_suite    training rows -> texts of the suite's files
size_warnings  suite -> what its cases can show, and warnings about too few of them
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from harness.core.errors import Place, SuiteError, UsageError
from harness.core.suite import Role, Suite
from harness.core.wording import plural
from harness.core.yaml import read_bytes
from harness.suites import parse_suite
from harness.suites.grids import parse_plan
from harness.suites.new.read_rows import parse_rows
from harness.suites.new.size_warnings import size_warnings
from harness.suites.new.write_suite import KEPT_BACK, files, reworded
from harness.suites.rows import USUAL, Columns

__all__ = ["Columns", "Made", "make"]


@dataclass(frozen=True)
class Made:
    """A new suite. Its text (`str`) is the output of `harness new`: contents, warnings and next commands."""

    suite: Suite
    stubs: int
    """Number of cases that the user still has to write."""
    notices: tuple[str, ...]
    """Sentences about how the source file was read, and which columns and rows were left out."""
    warnings: tuple[str, ...]
    """Sentences that warn about too few training rows or cases."""

    def __str__(self) -> str:
        return "\n".join(_words(self))


def make(folder: Path, source: Path, columns: Columns = USUAL) -> Made:
    """Write a suite into a new folder, completely or not at all.

    Raises:
        UsageError: the folder exists already, or cannot be written.
        SuiteError: the source file has mistakes; the error gives file and line.
    """
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists already, and nothing was written", remedy="Give the suite another name.")
    rows = parse_rows(_content(source), str(source), columns)
    description = f"From {source.name}: {plural(len(rows.examples), 'training row')}."
    texts = files(rows.examples, description, rows.rewordings)
    suite = _read(texts, folder)
    _write(texts, folder)
    cases = reworded(rows.examples, rows.rewordings)
    stubs = [count for count, case in enumerate(cases, 1) if not case.written]
    in_main = sum(count % KEPT_BACK != 0 for count in stubs)
    return Made(suite, len(stubs), rows.notices, size_warnings(suite, in_main))


def _content(source: Path) -> bytes:
    try:
        return read_bytes(source, str(source), SuiteError)
    except FileNotFoundError:
        remedy = "Name a file of questions and answers, such as a CSV or JSONL file."
        what = "is a folder" if source.is_dir() else "there is no such file"
        raise SuiteError(what, remedy=remedy, place=Place(str(source))) from None


def _read(texts: Mapping[str, str], folder: Path) -> Suite:
    """Parse the new suite and its grids, which also checks them."""
    for name in (name for name in texts if name.startswith("grids/")):
        parse_plan(texts[name], name)
    return parse_suite(texts["suite.yaml"], "suite.yaml", texts.__getitem__, name=folder.name, folder=str(folder))


def _write(texts: Mapping[str, str], folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as problem:
        raise _unwritten(folder, problem) from None
    try:
        for name, text in texts.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_text(text, encoding="utf-8", newline="\n")
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError as problem:
        raise _unwritten(folder, problem) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unwritten(folder: Path, problem: OSError) -> UsageError:
    return UsageError(f"cannot write {folder}: {problem.strerror}", remedy="Choose another folder.")


# --- words -------------------------------------------------------------------------------------------------------


def _words(made: Made) -> list[str]:
    folder = made.suite.folder
    counts = {role: sum(case.role is role for case in made.suite.cases) for role in Role}
    stubs = plural(made.stubs, "generalise case")
    rows, learn = plural(len(made.suite.examples), "training row"), plural(counts[Role.LEARN], "learn case")
    return [
        f"Wrote {folder}: {rows}, {learn}, {counts[Role.RETAIN]} retain cases, and two grids.",
        *made.notices,
        *([f"Still to write (marked TODO in {folder}/suite.yaml): {stubs}."] if made.stubs else []),
        *(["What this suite can and cannot show:"] if made.warnings else []),
        *(f"  {sentence}" for sentence in made.warnings),
        f"Next: {shlex.join(['harness', 'validate', str(folder)])}",
        f"Then: {shlex.join(['harness', 'run', str(folder)])}",
    ]
