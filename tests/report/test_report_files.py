"""Tests of `harness report` with arguments that cannot be used, and in a run that another process is working in."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from tests.support.command_line import error_of, locked


def test_a_run_against_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If `harness report` is given the same run twice, it exits with 2 and an error that says so."""
    assert main(["report", "first", "first"]) == 2
    assert "a run is named twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "first", "--output", "."], "is a directory"),
        (["report", "first", "--format", "csv", "--output", "first/run.json"], "is a file"),
        (["report", "first", "--output", "first/run.json/page.html"], "cannot write"),
        (["report", "first", "--format", "csv", "--output", "first/run.json/tables"], "cannot write"),
        (["report", "first", "first", "--handout", "--output", "page.html"], "is one file, but 2 runs"),
        (["report", "first", "--handout", "--format", "md"], "a handout has no format md"),
        (["report", "first", "nowhere"], "there is no run in nowhere"),
    ],
)
def test_paths_that_cannot_be_used(
    here: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a path cannot be read or written as asked, `harness report` says so, writes nothing, and exits with 2."""
    before = sorted(here.rglob("*"))
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


def test_a_run_in_use(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While another process works in a run, `harness report` leaves the run's files alone. Its remedy works."""
    with locked(here / "first"):
        error = error_of(capsys, "report", "first")
        assert "another process is working in first" in error
        assert "or write the page elsewhere with --output FILE." in error
        assert main(["report", "first", "--output", "page.html"]) == 0
    assert (here / "page.html").is_file()
    assert main(["report", "first"]) == 0
