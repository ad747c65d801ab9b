"""`harness score` and `harness report` without a run, or without its results."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import (
    error_of,
    start_run,
)


@pytest.mark.parametrize("command", ["score", "report"])
@pytest.mark.parametrize("run", ["nowhere", "small", "small/suite.yaml"])
def test_there_is_no_run(capsys: pytest.CaptureFixture[str], command: str, run: str) -> None:
    """If there is no run, the error says how to create one."""
    error = error_of(capsys, command, run)
    assert error == f"Error: there is no run in {run}\nCreate one with `harness run SUITE`.\n"


def test_runs_that_exist_are_named(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """If there is no such run, the error names the runs in the working directory."""
    start_run("reports/runs/a")(here)
    start_run("reports/runs/b")(here)
    assert "Runs here: reports/runs/a, reports/runs/b\n" in error_of(capsys, "report", "nowhere")


def test_the_report_of_a_run_without_results(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """The report of a run without results is refused, with `harness run` as remedy."""
    start_run("o")(here)
    error = error_of(capsys, "report", "o")
    assert "harness run" in error
