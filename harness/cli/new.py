"""`harness new`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.places import PLACE


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
    "--prompt-column", metavar="COLUMN", help="Where questions stand; else question, prompt, instruction, ..."
)
@click.option("--answer-column", metavar="COLUMN", help="Where answers stand; else answer, completion, output, ...")
def new(name: Path, source: Path, prompt_column: str | None, answer_column: str | None) -> None:
    """Write a suite from your own questions and answers.

    NAME is the folder to make, such as suites/mine; what is there already is never changed. It gets your
    rows to train on, cases that ask them, cases for you to write in other words, a safety net of what
    the model must keep, and two grids.
    """
    from harness.starter import Columns, make

    click.echo(str(make(name, source, Columns(prompt_column, answer_column))))
