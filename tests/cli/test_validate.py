"""Tests of `harness validate`, and of mistakes in suites and grids, which every command reports with the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from tests.support.command_line import (
    Change,
    edit,
    error_of,
    write,
)

GRID_FILE = "small/grids/quick.yaml"
SUITES: dict[str, tuple[Change, str, str]] = {
    "not YAML": (write("small/suite.yaml", "tests: [\n  a: {"), "suite.yaml:3:1: not valid YAML", "Check indentation"),
    "an unknown key": (
        edit("small/suite.yaml", '"margin"', '"margn"'),
        'suite.yaml:3:2: unknown key "margn"',
        'Did you mean "margin"?',
    ),
    "an unknown assertion": (
        edit("small/suite.yaml", '"contains"', '"containz"'),
        'suite.yaml:15:14: unknown assertion type "containz"',
        'Did you mean "contains"?',
    ),
    "an id twice": (
        edit("small/suite.yaml", '"learn-who"', '"learn-name"'),
        'suite.yaml:21:10: two cases have the id "learn-name": suite.yaml:8:3 and suite.yaml:20:3',
        "Give each its own id",
    ),
    "a training line that is not JSON": (
        write("small/train.jsonl", '{"prompt": "a", "completion": "b"}\n{\'prompt\': 1}\n'),
        "train.jsonl:2:2: not valid JSON",
        "Every line must be one JSON object",
    ),
    "a training line without an answer": (
        write("small/train.jsonl", '{"prompt": "a"}\n'),
        "train.jsonl:1: has no answer",
        'Add it, as "completion": "..."',
    ),
    "no such axis": (
        write(GRID_FILE, "axes: {learning_rat: [1]}"),
        'quick.yaml:1:8: unknown key "learning_rat"',
        'Did you mean "learning_rate"?',
    ),
    "an empty grid": (write(GRID_FILE), "quick.yaml:1:1: the grid is empty", "Add axes"),
    "a grid of seeds alone": (write(GRID_FILE, "seeds: [0]"), "quick.yaml:1:1: the grid is empty", "Add axes"),
    "an empty axis": (write(GRID_FILE, "axes: {rank: []}"), "quick.yaml:1:14: rank: is empty", "Fill it in"),
}


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
@pytest.mark.parametrize("mistake", SUITES)
def test_a_mistake_in_a_suite(capsys: pytest.CaptureFixture[str], here: Path, mistake: str, command: str) -> None:
    """If a suite or grid has a mistake, `validate`, `plan` and `run` print the same file, line, mistake and remedy."""
    change, message, remedy = SUITES[mistake]
    change(here)
    error = error_of(capsys, command, "small")
    assert message in error
    assert remedy in error


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_no_such_suite(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """If a suite does not exist, the error suggests a similar name and lists the suites that exist."""
    assert error_of(capsys, command, "smal") == (
        'Error: smal: there is no such suite\nDid you mean "small"? Suites here: small.\n'
    )


def test_a_folder_without_suite_yaml(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """If a folder exists, but has no suite.yaml, the error says so and lists the suites that exist."""
    (here / "empty").mkdir()
    assert "empty: this folder holds no suite.yaml\nSuites here: small." in error_of(capsys, "run", "empty")


def test_validate(capsys: pytest.CaptureFixture[str]) -> None:
    """`validate` prints the numbers of training rows and variants, of cases by role and split, and any warnings."""
    assert main(["validate", "small"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines.pop(5)[:3] == ["suite.yaml:56:", "confirm-name", "has"]
    assert lines == [
        ["small:", "6", "cases,", "4", "training", "rows"],
        ["role", "main", "confirm"],
        ["learn", "2", "1"],
        ["retain", "2", "1"],
        ["grid", "quick:", "2", "variants,", "1", "seed"],
        ["The", "suite", "is", "valid."],
    ]
