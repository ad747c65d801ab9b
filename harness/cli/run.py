"""`harness run`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.cli.check import GRID, MODEL, PROFILE, SEEDS, SKIP, SUITE
from harness.cli.params import PLACE
from harness.core.device_profiles import PROFILES
from harness.core.engines import Engine

QUIET = click.option("--quiet", is_flag=True, help="Show no progress.")
CODE = click.option(
    "--allow-code", is_flag=True, help="Let the suite run its own code to judge answers (if you trust it)."
)

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
    help="Number of fresh seeds under which the best variant is trained again; 0 skips the confirmation.",
)
@click.option("--output", type=PLACE, metavar="DIR", help="Directory of the run (default: one in reports/runs).")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Time limit of one trial in seconds."
)
@click.option("--fresh", is_flag=True, help="Ignore earlier results: train and answer everything again.")
@click.option(
    "--adapter",
    "adapters",
    type=PLACE,
    multiple=True,
    metavar="DIR",
    help="Also score an adapter trained elsewhere (a folder as PEFT saves it); repeatable.",
)
@click.option(
    "--engine",
    type=click.Choice(sorted(engine.value for engine in Engine)),
    default=Engine.AUTO.value,
    show_default=True,
    help="fused trains trials of one base together; reference trains one by one with SFTTrainer; auto is fused where "
    "several trials share a base.",
)
@click.option("--timeline", is_flag=True, help="Also evaluate the suite after every epoch.")
@click.option(
    "--skip-hopeless",
    is_flag=True,
    help="Skip trials predicted to run out of GPU memory; the report marks them as predicted.",
)
@click.option(
    "--budget",
    metavar="TIME",
    help="Time limit (2h, 90m, 45s). The most informative trials run first; rerun the command to continue.",
)
@click.option(
    "--sync",
    type=PLACE,
    metavar="DIR",
    help="Folder that outlives this machine: finished trials are copied to it, and a new machine resumes from it.",
)
@SKIP
@CODE
@QUIET
@click.option("--verbose", is_flag=True, help="Show the workers' logs.")
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

    SUITE is a folder with suite.yaml, train.jsonl and grids/. Run the same command again to resume:
    finished trials are reused, and a changed assertion needs no new training.
    """
    from harness.cli.progress import Display
    from harness.report import json_summary, terminal
    from harness.runner import benchmark
    from harness.runner.budget import seconds
    from harness.runner.executors.processes import Processes

    request = benchmark.Request(
        suite=suite,
        grid=grid,
        model=model,
        profile=PROFILES[profile],
        seeds=seeds or None,
        confirm_seeds=confirm_seeds,
        output=output,
        fresh=fresh,
        timeout=timeout,
        skip_unsupported=skip_unsupported,
        allow_code=allow_code,
        timeline=timeline,
        adapters=adapters,
        arguments=words,
        skip_predicted_oom=skip_hopeless,
        budget=None if budget is None else seconds(budget),
        sync=sync,
        engine=Engine(engine),
    )
    with Display(quiet=quiet) as display:
        store, results = benchmark.run(request, Processes(display.show if verbose else None), [display])
    failures = benchmark.failures(results, store.root)
    if as_json:
        click.echo(json.dumps(json_summary.overview(results, store.root), indent=1))
    else:
        click.echo(terminal.summary(results, str(store.report)))
    for line in failures:
        click.echo(line, err=True)
    return TRIAL_FAILED if failures else 0
