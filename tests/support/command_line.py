"""Helpers for tests of the command line: functions that prepare the working directory, and `error_of`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.cli import main
from harness.models.resolving import POCKET
from harness.storage.runs import RunStore
from tests.support.synthetic_runs import results

ROOT = Path(__file__).parents[2]
HOLD_LOCK = """
import sys
from pathlib import Path
from harness.storage.runs import RunStore
with RunStore(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
Change = Callable[[Path], None]
"""A function that prepares a test's working directory: it writes, edits or deletes files in it."""


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return the content of every file below a folder, by path. The content of a folder is None."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command, check that it exits with 2 and one error and writes no file, and return its stderr."""
    before = tree(Path.cwd())
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("Error:") == 1
    assert "Traceback" not in printed.err
    assert tree(Path.cwd()) == before
    return printed.err


def write(path: str, content: str | bytes = "") -> Change:
    """Return a change that writes a file."""

    def change(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def edit(path: str, old: str, new: str) -> Change:
    """Return a change that replaces every occurrence of a text in a file."""

    def change(folder: Path) -> None:
        text = (folder / path).read_text(encoding="utf-8")
        assert old in text
        (folder / path).write_text(text.replace(old, new), encoding="utf-8")

    return change


def model(*changes: Change) -> Change:
    """Return a change that copies the pocket model to the folder `mine`, with an empty file of weights.

    The given changes are then applied.
    """

    def change(folder: Path) -> None:
        shutil.copytree(POCKET, folder / "mine", ignore=shutil.ignore_patterns("*.safetensors"))
        write("mine/model.safetensors")(folder)
        for each in changes:
            each(folder)

    return change


def delete(pattern: str) -> Change:
    """Return a change that deletes all files and folders that match a pattern."""

    def change(folder: Path) -> None:
        for path in list(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def nothing(folder: Path) -> None:
    """Leave the working directory as it is."""


def start_run(path: str) -> Change:
    """Return a change that creates the directory of a run that has no results yet."""
    return lambda folder: RunStore(folder / path).write_manifest(results(count=2, failures=False).run)


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Let another process hold the lock of a run directory while the block runs."""
    command = [sys.executable, "-c", HOLD_LOCK, str(run)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.communicate()
