"""The command line: one module per command. A command imports the rest of the package only when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import harness
from harness.cli.bless import bless
from harness.cli.chat import chat
from harness.cli.clean import clean
from harness.cli.doctor import doctor
from harness.cli.export import export
from harness.cli.gate import gate
from harness.cli.new import new
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
    *(new, validate, tokens, plan, run, score, report, recommend, gate, bless),
    *(chat, export, parity, clean, doctor, schema),
)
for command in COMMANDS:
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None, program: click.Command = cli) -> int:
    """Run one command and return its exit code, which is 2 after a HarnessError and 130 after Ctrl-C.

    `program` is the click command to run; tests pass others.
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
        return _exit_code_of_abort(stopped)


def _exit_code_of_abort(abort: click.Abort) -> int:
    """Print why click aborted and return the exit code. An EOFError outside a prompt is a bug and is raised again."""
    if isinstance(abort.__cause__, EOFError):
        raise abort.__cause__
    if isinstance(abort.__context__, EOFError):
        click.echo(
            "\nError: the question was not answered, so nothing was done\nAnswer y or n, or pass --yes.", err=True
        )
        return 2
    click.echo("Interrupted. Finished work is kept; run the same command to continue.", err=True)
    return INTERRUPTED
