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
    help="File of questions and answers: CSV or TSV, JSON or JSONL, Parquet, or a text export of Anki or Quizlet.",
)
@click.option(
    "--prompt-column",
    metavar="COLUMN",
    help="Column that holds the questions (default: question, prompt, instruction, ...). In a file without header, "
    "the number of the column.",
)
@click.option(
    "--answer-column",
    metavar="COLUMN",
    help="Column that holds the answers (default: answer, completion, output, ...).",
)
@click.option(
    "--leave-out",
    multiple=True,
    metavar="COLUMN",
    help="Column to ignore, such as a context that the answers do not need. Can be repeated.",
)
def new(
    name: Path, source: Path, prompt_column: str | None, answer_column: str | None, leave_out: tuple[str, ...]
) -> None:
    """Create a suite from your own questions and answers.

    NAME is the folder to create, such as suites/mine; existing files are never changed. The new suite
    contains your rows as training data, test cases with the same questions, cases for which you write
    rephrased questions, cases for abilities that the model must keep, and two grids.
    """
    from harness.suites.new import Columns, make

    echo(str(make(name, source, Columns(prompt_column, answer_column, leave_out))))
