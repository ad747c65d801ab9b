"""The command line: parse, call a stage, map errors to exit codes. Commands import what they need when called."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import harness
from harness.cli.look import plan, schema, validate
from harness.cli.run import run
from harness.cli.runs import clean, report, score
from harness.errors import HarnessError

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


for command in (validate, plan, run, score, report, clean, schema):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 is fine, and the README says what else there is."""
    try:
        return cli.main(args=arguments and list(arguments), prog_name="harness", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except HarnessError as error:
        click.echo(f"Error: {error}", err=True)
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted. What is finished is kept; the same command goes on from there.", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        return 0
