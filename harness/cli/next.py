"""`harness next`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import PATH, RUN
from harness.cli.output import echo


@click.command("next")
@RUN
@click.option(
    "--output",
    type=PATH,
    metavar="FILE",
    help="Grid file to write (default: grids/next.yaml in the suite's folder, or next.yaml in the run's directory if "
    "that folder no longer exists). Existing files are never changed.",
)
def next_trials(run: Path, output: Path | None) -> None:
    """Write the trials that a run's results speak for as a grid, and print why and how to run it.

    RUN is the directory of a run. At most five trials are proposed, none of which the run has already:
    rehearsal where a good variant forgets much, the larger amounts with more training, a learning rate or an
    amount of rehearsal between two of which one learns more and the other forgets less, fewer epochs. The command also
    says what to change in the suite: more cases of a role, longer answers, or training rows against what a
    variant should avoid. If no variant learned, it says whether the suite
    or the toy model is the cause. If the results speak for nothing, it says so and writes nothing.
    """
    from harness.runner.next_grid import write_next

    echo(write_next(run, output))
