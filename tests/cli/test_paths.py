"""Tests of paths that cannot exist or cannot be written, for every command that takes a path."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.storage.runs import RunStore
from tests.support.command_line import (
    tree,
    write,
)
from tests.support.synthetic_runs import results

BAD_PATHS = {
    "a long name": "x" * 300,
    "no such system": "/proc/nothing/x",
    "below a file": "file/x",
    "a folder": "small",
}
COMMANDS = {
    "new": ("new", "{}", "--from", "rows.csv"),
    "run --output": ("run", "small", "--output", "{}"),
    "run --sync": ("run", "small", "--output", "fresh", "--sync", "{}/x/y"),
    "report --output": ("report", "made", "--output", "{}"),
    "report --format md": ("report", "made", "--format", "md", "--output", "{}"),
    "report --format csv": ("report", "made", "--format", "csv", "--output", "{}/suite.yaml"),
    "report of two": ("report", "made", "again", "--output", "{}"),
    "gate --markdown": ("gate", "made", "--baseline", "again", "--markdown", "{}"),
    "gate --json": ("gate", "made", "--baseline", "again", "--json", "{}"),
    "bless --name": ("bless", "made", "--name", "{}/x"),
    "read: report": ("report", "{}"),
    "read: gate": ("gate", "made", "--baseline", "{}"),
    "read: plan": ("plan", "{}/x"),
}
"""Commands that take a path; `{}` stands for the bad path."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run."""
    folder, made = tmp_path_factory.mktemp("finished") / "run", results(count=2, failures=False)
    RunStore(folder).write_manifest(made.run)
    RunStore(folder).write_results(made, (), lambda: "")
    return folder


@pytest.mark.parametrize("bad", BAD_PATHS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_path(capsys: pytest.CaptureFixture[str], here: Path, finished: Path, command: str, bad: str) -> None:
    """If a path cannot exist or cannot be written, the command prints one error, which names the path."""
    write("rows.csv", "question,answer\nWho?,I.\n")(here)
    write("file")(here)
    for name in ("made", "again"):
        shutil.copytree(finished, here / name)
    before = tree(here)
    path = BAD_PATHS[bad]
    assert main([word.format(path) for word in COMMANDS[command]]) == 2
    error = capsys.readouterr().err
    assert error.count("Error:") == 1
    assert path in error
    assert "Name another place" in error or error.strip().count("\n") == 1, "a line with the remedy"
    assert tree(here) == before
