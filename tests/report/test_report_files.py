"""Tests of `harness report` with arguments that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main


def test_a_run_against_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If `harness report` is given the same run twice, it exits with 2 and an error that says so."""
    assert main(["report", "first", "first"]) == 2
    assert "are the same run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "first", "--output", "."], "is a directory"),
        (["report", "first", "--format", "csv", "--output", "first/run.json"], "is a file"),
        (["report", "first", "--output", "first/run.json/page.html"], "cannot write"),
        (["report", "first", "--format", "csv", "--output", "first/run.json/tables"], "cannot write"),
        (["report", "first", "nowhere"], "there is no run in nowhere"),
    ],
)
def test_paths_that_cannot_be_used(
    here: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a path cannot be read or written, `harness report` says so and exits with 2."""
    assert main(words) == 2
    assert message in capsys.readouterr().err
