"""The command line: parses, calls stages, and maps errors to exit codes. Commands import what they need when called."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import harness
from harness.cli.chat import chat, parity
from harness.cli.check import plan, schema, validate
from harness.cli.doctor import doctor
from harness.cli.export import export
from harness.cli.gate import bless, gate
from harness.cli.new import new
from harness.cli.run import run
from harness.cli.runs import clean, recommend, report, score
from harness.core.errors import HarnessError

__all__ = ["main"]
INTERRUPTED = 130


class _InOrderOfUse(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


@click.group(cls=_InOrderOfUse, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(harness.__version__, prog_name="harness")
def cli() -> None:
    """Benchmark QLoRA fine-tuning: train a grid of settings, compare every answer with the
    base model's, and read one report.

    Start with `harness run suites/workshop`: it trains a toy model and needs no GPU.
    """


COMMANDS = (
    *(new, validate, plan, run, score, report, recommend, gate, bless),
    *(chat, export, parity, clean, doctor, schema),
)
for command in COMMANDS:
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None, program: click.Command = cli) -> int:
    """Run one command and return its exit code.

    `program` is the command group; tests may pass another.
    """
    words = tuple(sys.argv[1:] if arguments is None else arguments)
    try:
        return program.main(args=list(words), obj=words, prog_name="harness", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except HarnessError as error:
        click.echo(f"Error: {error}", err=True)
        return 2
    except click.Abort as stopped:
        return _stopped(stopped)


def _stopped(why: click.Abort) -> int:
    """Exit code for click's Abort: Ctrl-C, a question without an answer, or a bug that raised EOFError."""
    if isinstance(why.__cause__, EOFError):
        raise why.__cause__
    if isinstance(why.__context__, EOFError):
        click.echo(
            "\nError: the question was not answered, so nothing was done\nAnswer y or n, or pass --yes.", err=True
        )
        return 2
    click.echo("Interrupted. Finished work is kept; run the same command to continue.", err=True)
    return INTERRUPTED
