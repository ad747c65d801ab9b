"""`harness recommend`."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path

import click

from harness.cli.options import RUN
from harness.cli.output import echo


@click.command()
@RUN
@click.option(
    "--max-memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GIB",
    help="Consider only variants whose training fits in this much GPU memory.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="Consider only variants that train in this many minutes on the GPU.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the recommendation as JSON.")
def recommend(run: Path, max_memory: float | None, max_minutes: float | None, as_json: bool) -> None:
    """Print the settings that a run recommends, and the reasons.

    RUN is the directory of a run. The recommendation is the cheapest variant whose pass rate is within one
    standard error of the best, among the variants that keep what the base model could do. It must have been
    confirmed with fresh seeds and held-out cases; otherwise the command prints why there is no
    recommendation. With --max-memory or --max-minutes, only variants whose memory or time on a GPU is known
    are considered.
    """
    from harness.analysis import next_trials, recommendation
    from harness.analysis.selection import Caps
    from harness.report import terminal
    from harness.storage.runs import find_run

    results = find_run(run).results()
    found = recommendation.recommend(results, Caps(max_memory, max_minutes))
    steps = next_trials.next_steps(results)
    if as_json:
        echo(json.dumps({**asdict(found), "next": asdict(steps)}, indent=1))
    else:
        echo(terminal.advice(found, steps, f"harness next {shlex.quote(str(run))}"))
