"""`harness run`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.cli.look import GRID, MODEL, PROFILE, SEEDS, SKIP, SUITE
from harness.cli.places import PLACE

QUIET = click.option("--quiet", is_flag=True, help="No progress.")
CODE = click.option("--allow-code", is_flag=True, help="Let code beside the suite judge answers; only if you trust it.")

TRIAL_FAILED = 3


@click.command()
@SUITE
@GRID
@MODEL
@PROFILE
@SEEDS
@click.option(
    "--confirm-seeds",
    default=3,
    show_default=True,
    metavar="N",
    help="Fresh seeds under which the best variant is trained again; 0 leaves confirmation out.",
)
@click.option("--output", type=PLACE, metavar="DIR", help="Instead of a directory in reports/runs.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Seconds a trial may take.")
@click.option("--fresh", is_flag=True, help="Train and answer everything again.")
@click.option(
    "--adapter",
    "adapters",
    type=PLACE,
    multiple=True,
    metavar="DIR",
    help="Score an adapter trained elsewhere beside the grid: a folder as PEFT saves it; repeatable.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "fused", "reference"]),
    default="auto",
    show_default=True,
    help="fused trains trials of one base side by side, reference one by one with SFTTrainer. auto: fused for several.",
)
@click.option("--timeline", is_flag=True, help="Ask everything after every epoch, too: when is what learned, or lost?")
@click.option(
    "--skip-hopeless", is_flag=True, help="Leave out trials predicted not to fit the GPU; shown as predicted."
)
@click.option(
    "--budget",
    metavar="TIME",
    help="Stop in time, the most telling trials first: 2h, 90m, 45s. The same command goes on.",
)
@click.option(
    "--sync",
    type=PLACE,
    metavar="DIR",
    help="Copy every finished trial there, and begin from what is there: a folder that outlives this machine.",
)
@SKIP
@CODE
@QUIET
@click.option("--verbose", is_flag=True, help="Show the workers' logs as they grow.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_obj
def run(
    words: tuple[str, ...],
    suite: Path,
    grid: str,
    model: str,
    profile: str,
    seeds: tuple[int, ...],
    confirm_seeds: int,
    output: Path | None,
    timeout: float | None,
    fresh: bool,
    adapters: tuple[Path, ...],
    engine: str,
    timeline: bool,
    skip_hopeless: bool,
    budget: str | None,
    sync: Path | None,
    skip_unsupported: bool,
    allow_code: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Train, answer, score, confirm, report.

    SUITE is a folder with suite.yaml, train.jsonl and grids/. Run the same command again to go on
    where it stopped; only what is missing is done, and a changed assertion trains nothing.
    """
    from harness import benchmark, frame
    from harness.budget import seconds
    from harness.cli.progress import Display
    from harness.executors.processes import Processes
    from harness.provenance import Profile

    request = benchmark.Request(
        suite,
        grid,
        model,
        Profile(profile),
        seeds or None,
        confirm_seeds,
        output,
        fresh,
        timeout,
        skip_unsupported,
        allow_code,
        timeline,
        adapters,
        words,
        skip_hopeless=skip_hopeless,
        budget=None if budget is None else seconds(budget),
        sync=sync,
        engine=engine,
    )
    with Display(quiet=quiet) as display:
        store, results = benchmark.run(request, Processes(display.show if verbose else None), display)
    failures = benchmark.failures(results, store.root)
    if as_json:
        click.echo(json.dumps(frame.overview(results, store.root), indent=1))
    else:
        click.echo(frame.summary(results, str(store.report)))
    for line in failures:
        click.echo(line, err=True)
    return TRIAL_FAILED if failures else 0
