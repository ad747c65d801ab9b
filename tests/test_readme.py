"""The README says what is so. Run this file to write the real `harness --help` into it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
HELP = re.compile(r"(?<=<!-- `harness --help`;)([^\n]+\n```text\n)(.*?)(?=```\n)", re.DOTALL)
EXCERPT = re.compile(r"```yaml\n# from (\S+)\n(.*?)```\n", re.DOTALL)
CELL = re.compile(r"^!harness ([^\n]+)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://)([^)#]+)\)")


def text() -> str:
    return README.read_text(encoding="utf-8")


def real_help() -> str:
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "harness", "--help"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def said_help() -> str:
    found = HELP.search(text())
    assert found, "README has no block for `harness --help`"
    return found.group(2)


def commands(help_text: str) -> set[str]:
    """The names in the help's list of commands."""
    _, _, listed = help_text.partition("Commands:\n")
    return set(re.findall(r"^  ([a-z]+)\b", listed, re.MULTILINE))


def test_help_is_the_real_one() -> None:
    """The README's commands are what `harness --help` prints."""
    assert said_help() == real_help(), "run `python tests/test_readme.py`"


def test_named_commands_exist() -> None:
    """Every `harness COMMAND` that the README names is a command."""
    named = set(re.findall(r"\bharness ([a-z]+)\b(?! reports)", " ".join(re.findall(r"`([^`\n]+)`", text()))))
    assert named, "README names no command"
    assert named <= commands(real_help())


@pytest.mark.parametrize("line", CELL.findall(text()))
def test_cells_are_commands(line: str) -> None:
    """Every `!harness ...` of a cell to be pasted is a command with options that it has."""
    from harness.cli import cli

    name, *words = shlex.split(line)
    command = cli.commands[name]
    command.make_parser(click.Context(command, help_option_names=["-h", "--help"])).parse_args(words)


def test_named_sessions_exist() -> None:
    """Every `nox -s SESSION` that the README names is a session of noxfile.py."""
    sessions = set(
        re.findall(r"^def ([a-z]+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert set(re.findall(r"nox -s ([a-z]+)", text())) <= sessions


@pytest.mark.parametrize(("file", "lines"), EXCERPT.findall(text()))
def test_excerpts_are_verbatim(file: str, lines: str) -> None:
    """What the README quotes from a suite or a grid stands there, word for word."""
    assert lines in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("target", sorted(set(LINK.findall(text()))))
def test_links_lead_somewhere(target: str) -> None:
    """Every relative link of the README is a file or folder of this repository."""
    assert (ROOT / target).exists()


if __name__ == "__main__":
    new = HELP.sub(lambda found: found.group(1) + real_help(), text())
    README.write_text(new, encoding="utf-8")
