"""Tests of the command `harness` itself: wrong usage, help, version, and exit codes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from unittest.mock import Mock

import click
import pytest

import harness
import harness.cli
from harness.cli import main
from harness.core import programs
from tests.support.command_line import (
    error_of,
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rum", "small"), "No such command 'rum'. Did you mean 'run'?"),
        (("run", "small", "--profil", "cpu"), "Did you mean '--profile'?"),
        (("run",), "Missing argument 'SUITE'."),
        (("run", "small", "--profile", "gpu"), "'gpu' is not one of 'auto', 'cpu', 't4'."),
        (("run", "small", "--timeout", "0"), "'--timeout'"),
        (("plan", "small", "--seed", "x"), "'x' is not a valid integer"),
        (("schema", "sweet"), "is not one of 'suite', 'grid'."),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    """If a command, option or value is wrong, the error says which, suggests a similar name, and mentions --help."""
    error = error_of(capsys, *arguments)
    assert re.sub("[()]", "", message) in re.sub("[()]", "", error)
    assert "--help' for help." in error


def test_no_command_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    """If `harness` is called without a command, it prints the help."""
    assert main([]) in (0, 2)
    printed = capsys.readouterr()
    assert "Start with `harness run suites/workshop`" in printed.out + printed.err


@pytest.mark.parametrize(
    "command", [(), ("new",), ("validate",), ("plan",), ("run",), ("score",), ("report",), ("clean",)]
)
def test_help(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    """A command prints the same help for -h as for --help."""
    assert main([*command, "--help"]) == 0
    help_text = capsys.readouterr().out
    assert main([*command, "-h"]) == 0
    assert capsys.readouterr().out == help_text
    assert help_text.startswith("Usage: harness")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the package's version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"harness, version {harness.__version__}\n"


def failing(error: BaseException) -> click.Command:
    """Return a click command that raises this error."""

    def end() -> None:
        raise error

    return click.Command("end", callback=end)


def test_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    """If Ctrl-C interrupts a command, the exit code is 130, and the message says that finished work is kept."""
    assert main([], failing(KeyboardInterrupt())) == 130
    printed = capsys.readouterr().err
    assert "Finished work is kept; run the same command to continue." in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    "bug", [ValueError("a bug"), EOFError("a bug"), OSError("a bug")], ids=lambda bug: type(bug).__name__
)
def test_a_bug_leaves_a_report(capsys: pytest.CaptureFixture[str], bug: Exception) -> None:
    """If a command raises an unexpected exception, the exit code is 70, and a file has its traceback."""
    assert main([], failing(bug)) == 70
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    report = Path(printed.split("Its report is in ")[1].strip().removesuffix("."))
    written = report.read_text(encoding="utf-8")
    report.unlink()
    assert f"harness {harness.__version__}" in written
    assert f"{type(bug).__name__}: a bug" in written


def test_the_report_of_a_bug_holds_no_key(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The values of both variables with keys are masked, also where Python shows them with escapes."""
    monkeypatch.setenv("HARNESS_JUDGE_KEY", "first-half\nsecond-half")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    assert main([], failing(ValueError(f"{b'first-half' + bytes([10]) + b'second-half'!r} and sk-of-openai"))) == 70
    report = Path(capsys.readouterr().err.split("Its report is in ")[1].strip().removesuffix("."))
    written = report.read_text(encoding="utf-8")
    report.unlink()
    assert "ValueError: b'***' and ***" in written


def test_a_second_interrupt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """If Ctrl-C is pressed again while the first is handled, the exit code is 130, without a traceback."""
    monkeypatch.setattr(harness.cli, "_exit_code_of_abort", Mock(side_effect=KeyboardInterrupt))
    assert main([], failing(KeyboardInterrupt())) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_in_order(number: signal.Signals) -> None:
    """On SIGTERM and SIGHUP the command's own clean-up runs, and the exit code names the signal."""
    cleaned: list[bool] = []

    def wait() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            cleaned.append(True)

    with pytest.raises(SystemExit) as ended:
        main([], click.Command("wait", callback=wait))
    assert (ended.value.code, cleaned) == (128 + number, [True])


class PanicException(BaseException):
    """Like the exception of the same name in packages that are written in Rust, whose base is no `Exception`."""


def test_a_panic_is_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    """If a library written in Rust panics, the exit code is 70, as after any other bug."""
    assert main([], failing(PanicException("out of range"))) == 70
    Path(capsys.readouterr().err.split("Its report is in ")[1].strip().removesuffix(".")).unlink()


def code_in_shell(command: str) -> tuple[int, str]:
    """Run a command in bash and return the exit code of its first program, and what it prints."""
    words = programs.python("-m", "harness")
    script = f'{command.replace("harness", shlex.join(words), 1)}; echo "code ${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", script], text=True, capture_output=True, env=programs.environment(), check=False
    )
    return int(done.stdout.rsplit("code ", 1)[1]), done.stderr


@pytest.mark.parametrize("command", ["harness schema suite | true", "harness --help | true"])
def test_output_that_nobody_reads(command: str) -> None:
    """If nobody reads the output, as in `harness ... | head -1`, the exit code is 141, not 1, without a traceback."""
    assert code_in_shell(command) == (141, "")


@pytest.mark.parametrize("command", ["harness schema suite > /dev/full", "harness --help > /dev/full"])
def test_output_to_a_full_disk(command: str) -> None:
    """If the output is redirected to a file on a full disk, the exit code is 2, with one error and a remedy."""
    code, error = code_in_shell(command)
    assert (code, error.count("Error:"), len(error.splitlines())) == (2, 1, 2)


@pytest.mark.parametrize("target", ["/dev/full", "&-"])
def test_an_error_that_cannot_be_printed(target: str) -> None:
    """If an error message cannot be printed, the exit code is that of the error."""
    assert code_in_shell(f"harness gate none --baseline none 2>{target}") == (2, "")


@pytest.mark.parametrize(("program", "code"), [("raise ImportError", 70), ("raise KeyboardInterrupt", 130)])
def test_a_package_that_cannot_be_imported(tmp_path: Path, program: str, code: int) -> None:
    """If a package that the command needs cannot be imported, the exit code is 70, and 130 after Ctrl-C."""
    (tmp_path / "click.py").write_text(program, encoding="utf-8")
    words = programs.python("-m", "harness", "gate", "run", "--baseline", "good")
    environment = programs.environment({"PYTHONPATH": str(tmp_path)})
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, done.stderr


def test_commands_get_the_arguments() -> None:
    """A command can read all arguments of the command line, because `main` passes them as click's context object."""
    kept: list[tuple[str, ...]] = []

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1)
    @click.pass_obj
    def program(given: tuple[str, ...], words: tuple[str, ...]) -> None:
        kept.append(given)

    assert main(["small", "--seed", "1"], program) == 0
    assert kept == [("small", "--seed", "1")]


@pytest.mark.parametrize("command", [("doctor",), ("gate", "run", "--baseline", "good"), ("run", "s")])
def test_a_deleted_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """In a current folder that was deleted, every command ends with one error and exit code 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("Error: the current folder was deleted\nChange into another folder")
