"""`harness report`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import ALLOW_CODE, PATH, RUN
from harness.cli.output import echo


@click.command()
@RUN
@click.argument("later", type=PATH, required=False)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "md", "csv", "eee"]),
    default="html",
    show_default=True,
    help="html writes a page; md prints a summary for a pull request; csv writes tables; eee writes files in the "
    "schema of Every Eval Ever.",
)
@click.option("--output", type=PATH, metavar="PATH", help="Output file (html, md) or directory (csv, eee).")
@ALLOW_CODE
def report(run: Path, later: Path | None, kind: str, output: Path | None, allow_code: bool) -> None:
    """Write the report of a run again, or compare two runs.

    RUN is the directory of a run. If you also pass LATER, the directory of a second run, the report compares
    the two.
    """
    from harness.report import report_files

    form = report_files.Format(kind)
    if later is None:
        echo(report_files.of_run(run, form, output))
    else:
        echo(report_files.of_two(run, later, form, output, allow_code=allow_code))
