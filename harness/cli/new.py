"""`harness new`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.params import PLACE


@click.command()
@click.argument("name", type=PLACE)
@click.option(
    "--from",
    "source",
    type=PLACE,
    required=True,
    metavar="FILE",
    help="Questions and answers: .csv or .tsv with a header, or .jsonl with messages or pairs.",
)
@click.option(
    "--prompt-column", metavar="COLUMN", help="Column of the questions (default: question, prompt, instruction, ...)."
)
@click.option(
    "--answer-column", metavar="COLUMN", help="Column of the answers (default: answer, completion, output, ...)."
)
def new(name: Path, source: Path, prompt_column: str | None, answer_column: str | None) -> None:
    """Write a suite from your own questions and answers.

    NAME is the folder to create, such as suites/mine; existing files are never changed. It contains your
    rows as training data, cases that ask them, cases for you to rephrase, cases that check what the model
    must not lose, and two grids.
    """
    from harness.suites.new import Columns, make

    click.echo(str(make(name, source, Columns(prompt_column, answer_column))))
