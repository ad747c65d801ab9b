"""Tests that nothing reaches the terminal with control characters of texts from outside."""

from __future__ import annotations

import ast
import re
from io import StringIO
from pathlib import Path

import click
import pytest
from rich.table import Table

from harness.cli import main, output
from harness.cli.chat_session import print_answers
from harness.cli.output import Output, echo
from harness.cli.progress import Display
from harness.core.errors import SuiteError
from harness.core.job import Event, EventKind
from harness.core.training_outcome import Status

PACKAGE = Path(output.__file__).parents[1]
HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\u202eevil\u2066\r"
"""Writes the clipboard, clears the screen, changes colours, and reverses the direction of text."""
DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
DOORS = {
    "cli/output.py": "the owner",
    "report/terminal.py": "draws a table as text, which `echo` prints",
    "scoring/assertion_types/external.py": "catches what a suite's own code prints",
    "core/limited_process.py": "answers its parent process",
    "engine/gguf_conversion.py": "answers its parent process",
    "engine/worker.py": "writes the log of its process, which `Display.show` prints",
    "engine/worker_streams.py": "flushes that log",
}
"""Modules that may name a console or standard output, with the reason."""


def prints(file: Path) -> bool:
    """Return whether a module prints without the owner, or makes a console of its own."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "Console"}:
            return True
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = f"{node.value.id}.{node.attr}"
            if pair in {"click.echo", "click.secho", "sys.stdout", "sys.stderr"}:
                return True
    return False


def test_every_door_to_the_terminal_has_the_owner() -> None:
    """Only the modules of `DOORS` print or make a console; all others call `echo` or `Output`."""
    found = {str(file.relative_to(PACKAGE)) for file in sorted(PACKAGE.rglob("*.py")) if prints(file)}
    assert found <= set(DOORS), found - set(DOORS)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_shows_control_characters_by_name(terminal: bool) -> None:
    """A table's cells and a printed text cannot send control characters, in a terminal or a pipe."""
    file = StringIO()
    console = Output(file=file, force_terminal=terminal, color_system=None)
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE)
    assert not DANGEROUS.search(file.getvalue().replace("\x1b[?25l", ""))
    assert "‹ESC›" in file.getvalue()


def test_answers_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """`harness chat` prints a model's answer without its control characters."""
    print_answers(f"q{HOSTILE}", (("base", HOSTILE), (f"tuned{HOSTILE}", "x")))
    printed = capsys.readouterr().out
    assert not DANGEROUS.search(printed)
    assert "‹ESC›" in printed


@pytest.mark.parametrize(
    "event",
    [
        Event(EventKind.NOTICED, message=HOSTILE),
        Event(EventKind.PLANNED, message=HOSTILE, total=3),
        Event(EventKind.FINISHED, HOSTILE, Status.FAILED, HOSTILE),
    ],
    ids=lambda event: event.kind.value,
)
def test_progress(event: Event) -> None:
    """Notices, titles and failures of a run are shown without control characters."""
    file = StringIO()
    with Display(console=Output(file=file, width=200)) as display:
        display.on_event(Event(EventKind.PLANNED, message="grid", total=3))
        display.on_event(event)
        display.show(HOSTILE)
    assert not DANGEROUS.search(file.getvalue())


@pytest.mark.parametrize(
    "error", [SuiteError(HOSTILE, remedy=HOSTILE), click.UsageError(HOSTILE)], ids=lambda error: type(error).__name__
)
def test_errors(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    """An error message that quotes a file or a model has no control characters."""

    def fail() -> None:
        raise error

    assert main([], click.Command("fail", callback=fail)) == 2
    assert not DANGEROUS.search(capsys.readouterr().err)


def test_plain_text_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Letters of all languages, emoji, tabs and line ends are printed unchanged."""
    text = "Grüße\tمرحبا 🎉👩‍💻\nשלום"
    echo(text)
    assert capsys.readouterr().out == f"{text}\n"
