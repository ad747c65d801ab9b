"""`harness new`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import PATH
from harness.cli.output import echo


@click.command()
@click.argument("name", type=PATH)
@click.option(
    "--from",
    "source",
    type=PATH,
    required=True,
    metavar="FILE",
    help="File of questions and answers: .csv or .tsv with a header line, or .jsonl with chat messages or pairs.",
)
@click.option(
    "--prompt-column",
    metavar="COLUMN",
    help="Column that holds the questions (default: question, prompt, instruction, ...).",
)
@click.option(
    "--answer-column",
    metavar="COLUMN",
    help="Column that holds the answers (default: answer, completion, output, ...).",
)
def new(name: Path, source: Path, prompt_column: str | None, answer_column: str | None) -> None:
    """Create a suite from your own questions and answers.

    NAME is the folder to create, such as suites/mine; existing files are never changed. The new suite
    contains your rows as training data, test cases with the same questions, cases for which you write
    rephrased questions, cases for abilities that the model must keep, and two grids.
    """
    from harness.suites.new import Columns, make

    echo(str(make(name, source, Columns(prompt_column, answer_column))))
