"""Tests of `harness clean`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from tests.support.command_line import (
    ROOT,
    start_run,
    tree,
    write,
)


def test_clean_with_an_empty_cache(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """If the cache is empty, `clean` says so, asks nothing and changes nothing."""
    before = tree(here)
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == "reports/cache holds nothing.\n"
    assert tree(here) == before


def test_clean_deletes(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """`clean --yes` prints what the cache holds and deletes it, but keeps the runs."""
    write("reports/cache/trainings/one/adapter.safetensors", b"x" * 300_000)(here)
    write("reports/cache/answers/one/0001.json", b"{}")(here)
    start_run("reports/runs/a")(here)
    assert main(["clean", "--yes"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"trainings +1 +0\.3 MB", printed)
    assert printed.endswith("Deleted.\n")
    assert (here / "reports" / "runs" / "a" / "run.json").is_file()
    assert [path.name for path in (here / "reports" / "cache").rglob("*.*")] == ["clearing.lock"]


@pytest.mark.parametrize(("answer", "code"), [("n\n", 0), ("\n", 0), ("", 2)], ids=["no", "return", "nobody"])
def test_clean_without_a_yes(here: Path, answer: str, code: int) -> None:
    """If the question is not answered with yes, nothing is deleted; if nobody can answer, the error names --yes."""
    write("reports/cache/trainings/one/training.json", b"{}")(here)
    before = tree(here)
    done = subprocess.run(
        [sys.executable, "-m", "harness", "clean"], cwd=here, env=os.environ | {"PYTHONPATH": str(ROOT)}, input=answer,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert "Delete it? [y/N]" in done.stdout
    assert ("--yes" in done.stderr) == (code == 2)
    assert tree(here) == before
