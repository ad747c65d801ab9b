"""Tests of `harness score` and `harness report` if there is no run, or if it has no results."""

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
    """If the given path holds no run, the error says so and how to create one."""
    error = error_of(capsys, command, run)
    assert error == f"Error: there is no run in {run}\nCreate one with `harness run SUITE`.\n"


def test_runs_that_exist_are_named(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """If the given run does not exist, the error lists the runs below the working directory."""
    start_run("reports/runs/a")(here)
    start_run("reports/runs/b")(here)
    assert "Runs here: reports/runs/a, reports/runs/b\n" in error_of(capsys, "report", "nowhere")


def test_the_report_of_a_run_without_results(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """If a run has no results yet, `report` is refused and writes nothing, and the remedy is `harness run`."""
    start_run("o")(here)
    error = error_of(capsys, "report", "o")
    assert "the run in o has no results yet" in error
    assert "harness run" in error
