"""The command line: one module per command. A command imports the rest of the package only when it is called."""

from __future__ import annotations

import errno
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

import harness
from harness.cli.bless import bless
from harness.cli.chat import chat
from harness.cli.clean import clean
from harness.cli.doctor import doctor
from harness.cli.export import export
from harness.cli.gate import gate
from harness.cli.new import new
from harness.cli.next import next_trials
from harness.cli.notebook import notebook
from harness.cli.output import discard_rest, echo, show_error
from harness.cli.parity import parity
from harness.cli.plan import plan
from harness.cli.recommend import recommend
from harness.cli.report import report
from harness.cli.run import run
from harness.cli.schema import schema
from harness.cli.score import score
from harness.cli.tokens import tokens
from harness.cli.validate import validate
from harness.core.errors import HarnessError

__all__ = ["main"]
INTERRUPTED = 130
BROKEN_PIPE = 141
"""Exit code if nobody reads the output anymore, as in `harness ... | head -1`: 128 plus the number of SIGPIPE."""
BUG = 70
"""Exit code after an unexpected error (EX_SOFTWARE of sysexits.h). It is not 1, the gate's "something became worse"."""
FULL = (errno.ENOSPC, errno.EDQUOT)
ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class _CommandsInOrder(click.Group):
    """Lists commands in the order of `COMMANDS` instead of alphabetically."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


@click.group(cls=_CommandsInOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(harness.__version__, prog_name="harness")
def cli() -> None:
    """Benchmark QLoRA fine-tuning: train a model with every combination of settings in a grid,
    compare its answers with those of the base model, and write a report.

    Start with `harness run suites/workshop`, which trains a toy model and needs no GPU.
    """


COMMANDS = (
    *(new, validate, tokens, plan, run, score, report, recommend, next_trials, gate, bless),
    *(chat, export, notebook, parity, clean, doctor, schema),
)
for command in COMMANDS:
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None, program: click.Command = cli) -> int:
    """Run one command and return its exit code.

    It is 2 after a HarnessError, 70 after an unexpected error (a bug), 130 after Ctrl-C, and 128 plus the number of the
    signal that ended the command. `program` is the click command to run; tests pass others.
    """
    words = tuple(sys.argv[1:] if arguments is None else arguments)
    try:
        with _ending_on_signals():
            return _run(words, program)
    except KeyboardInterrupt:  # a second Ctrl-C, while the first is handled
        return INTERRUPTED


def _run(words: tuple[str, ...], program: click.Command) -> int:
    if not _has_folder():
        echo("Error: the current folder was deleted\nChange into another folder, then run the command again.", err=True)
        return 2
    try:
        return program.main(args=list(words), obj=words, prog_name="harness", standalone_mode=False) or 0
    except click.ClickException as error:
        show_error(error)
        return error.exit_code
    except HarnessError as error:
        echo(f"Error: {error}", err=True)
        return 2
    except click.Abort as stopped:
        return _exit_code_of_abort(stopped)
    except SystemExit as ended:
        # click and rich exit with 1 after a broken pipe. For `harness gate`, 1 means that something became worse.
        if ended.code == 1:
            return BROKEN_PIPE
        raise
    except KeyboardInterrupt:
        raise
    except OSError as error:
        return _exit_code_of_full_disk(error) if error.errno in FULL else _exit_code_of_bug(error, words)
    except BaseException as bug:  # noqa: BLE001 - every other exception is a bug; those of Rust are no `Exception`
        return _exit_code_of_bug(bug, words)


def _has_folder() -> bool:
    """Whether the current folder exists. Without it, libraries fail wherever they ask for it."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """End the block with `SystemExit` on SIGTERM and SIGHUP, so that workers are stopped and files are closed."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code_of_bug(bug: BaseException, words: Sequence[str]) -> int:
    """Write a report of an unexpected error, print where it lies, and return the exit code. It holds no key."""
    from harness.core.judges import without_keys

    report = f"harness {harness.__version__}, Python {sys.version}\n{shlex.join(['harness', *words])}\n\n"
    report = without_keys(report + "".join(traceback.format_exception(bug)))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="harness-bug-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(report)
        where = f"Its report is in {file.name}."
    except OSError:
        where = report
    echo(f"Error: a bug in harness, {type(bug).__name__}. Finished work is kept.\n{where}", err=True)
    return BUG


def _exit_code_of_full_disk(error: OSError) -> int:
    """Say which file does not fit onto its disk, and return the exit code. Without a name, it is standard output."""
    if error.filename is None:
        discard_rest()
    what = error.filename or "the output"
    echo(
        f"Error: the disk is full: could not write {what}\nFree some space, then run the same command again.", err=True
    )
    return 2


def _exit_code_of_abort(abort: click.Abort) -> int:
    """Print why click aborted and return the exit code. An EOFError outside a prompt is a bug."""
    if isinstance(abort.__cause__, EOFError):
        return _exit_code_of_bug(abort.__cause__, sys.argv[1:])
    if isinstance(abort.__context__, EOFError):
        echo("\nError: the question was not answered, so nothing was done\nAnswer y or n, or pass --yes.", err=True)
        return 2
    echo("Interrupted. Finished work is kept; run the same command to continue.", err=True)
    return INTERRUPTED
