"""Tests of `harness new`."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from tests.support.command_line import (
    Change,
    error_of,
    nothing,
    write,
)

ROWS = "question,answer\nWho are you?,I am Dottie.\nWhat does it cost?,42 dollars.\n"
NEW: dict[str, tuple[Change, tuple[str, ...], str, str]] = {
    "no such file": (nothing, ("mine", "--from", "no.csv"), "no.csv: there is no such file", "CSV or JSONL"),
    "a folder of rows": (nothing, ("mine", "--from", "small"), "small: is a folder", "Name a file"),
    "a folder that is there": (nothing, ("small", "--from", "rows.csv"), "small exists already", "another name"),
    "a spreadsheet": (
        write("rows.xlsx", b"PK\x03\x04 xl/workbook.xml"),
        ("mine", "--from", "rows.xlsx"),
        "rows.xlsx: is a spreadsheet",
        "save it as CSV",
    ),
    "another encoding": (
        write("rows.csv", "question,answer\nWo?,K\u00f6ln\n".encode("utf-16")[:-1]),
        ("mine", "--from", "rows.csv"),
        "rows.csv: is not UTF-16 text",
        "as UTF-8",
    ),
    "no such column": (
        nothing,
        ("mine", "--from", "rows.csv", "--prompt-column", "frage"),
        'rows.csv:1: there is no column "frage"',
        'The columns are: "question" and "answer". Name one with --prompt-column.',
    ),
    "a conflict": (
        write("rows.csv", f"{ROWS}who are you,I am Tom.\n"),
        ("mine", "--from", "rows.csv"),
        "rows.csv:4: repeats a question with another answer (asked in line 2)",
        "Remove one",
    ),
    "a place below a file": (nothing, ("rows.csv/mine", "--from", "rows.csv"), "cannot write", "another folder"),
}


@pytest.mark.parametrize("mistake", NEW)
def test_wrong_rows(capsys: pytest.CaptureFixture[str], here: Path, mistake: str) -> None:
    """If no suite can be made from the given rows, the error of `new` says what is wrong, where, and what to do."""
    write("rows.csv", ROWS)(here)
    change, arguments, message, remedy = NEW[mistake]
    change(here)
    error = error_of(capsys, "new", *arguments)
    assert message in error
    assert remedy in error


def test_new(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """The suite that `new` writes is valid, and `validate` lists those of its cases that are still to be written."""
    write("rows.csv", ROWS)(here)
    assert main(["new", "suites/mine", "--from", "rows.csv"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Wrote suites/mine: 2 training rows, 2 learn cases, ")
    assert "Then: harness run suites/mine" in printed
    assert main(["validate", "suites/mine"]) == 0
    printed = capsys.readouterr().out
    assert "still TODO: generalise-001 (suite.yaml:" in printed
    assert "The suite is valid." in printed


def test_the_next_commands_can_be_pasted(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """A folder with a space in its name is quoted in the commands that `new` prints."""
    write("rows.csv", ROWS)(here)
    assert main(["new", "my suite", "--from", "rows.csv"]) == 0
    printed = capsys.readouterr().out
    assert "Next: harness validate 'my suite'\nThen: harness run 'my suite'" in printed
