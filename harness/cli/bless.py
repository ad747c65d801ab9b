"""`harness bless`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import RUN
from harness.cli.output import echo


@click.command()
@RUN
@click.option("--name", metavar="NAME", help="Name of the baseline (default: SUITE-GRID-MODEL).")
def bless(run: Path, name: str | None) -> None:
    """Save a run as a baseline for later runs.

    RUN is the directory of a run. Its scores, answers, costs, settings and fingerprints are written to
    reports/baselines/NAME.json; commit this file. It contains no weights and no training rows.
    """
    from harness.analysis.regression.bless import bless as make_baseline
    from harness.storage.runs import find_run

    made = make_baseline(find_run(run), name)
    echo(str(made))
    echo(f"Commit it. To compare a later run with it: harness gate RUN --baseline {made.stem}", err=True)
