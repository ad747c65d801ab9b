"""`harness report`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import ALLOW_CODE, PATH
from harness.cli.output import echo


@click.command()
@click.argument("runs", type=PATH, nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "md", "csv", "eee"]),
    default="html",
    show_default=True,
    help="html writes a page; md prints a summary for a pull request; csv writes tables; eee writes files in the "
    "schema of Every Eval Ever.",
)
@click.option("--handout", is_flag=True, help="Write one printed page about a run for the participants of a class.")
@click.option("--output", type=PATH, metavar="PATH", help="Output file (html, md) or directory (csv, eee).")
@ALLOW_CODE
def report(runs: tuple[Path, ...], kind: str, handout: bool, output: Path | None, allow_code: bool) -> None:
    """Write the report of a run again, compare two runs, or show which base model to use.

    RUN is the directory of a run. For two runs on the same base model, the earlier one first, the report
    shows what changed. For runs of one suite on different base models, it shows which base, which settings,
    and what each costs.
    """
    from harness.report import report_files

    form = report_files.Format(kind)
    if handout:
        echo(report_files.handouts(runs, form, output))
    elif len(runs) == 1:
        echo(report_files.of_run(runs[0], form, output))
    else:
        echo(report_files.of_several(runs, form, output, allow_code=allow_code))
