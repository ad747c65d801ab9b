"""`harness run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import (
    ALLOW_CODE,
    GPUS,
    GRID,
    JUDGE,
    MODELS,
    PATH,
    PROFILE,
    QUIET,
    RACE,
    ROOT,
    SEEDS,
    SKIP_UNSUPPORTED,
    SUITE,
    WIDTH,
    WORKERS,
)
from harness.cli.output import echo
from harness.core.device_profiles import PROFILES
from harness.core.engines import Engine
from harness.core.executors import ExecutorName

if TYPE_CHECKING:
    from harness.runner.executors.protocol import Executor

TRIAL_FAILED = 3


_SLURM = "--slurm-"


class _RunCommand(click.Command):
    """Reads `--slurm-partition=gpu` as `--slurm-OPTION=partition=gpu`, because only sbatch knows all of its options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_as_value(word) for word in args])


def _as_value(word: str) -> str:
    name = word.removeprefix(_SLURM)
    return f"{_SLURM}OPTION={name}" if word.startswith(_SLURM) and not name.startswith("OPTION") else word


@click.command(cls=_RunCommand)
@SUITE
@GRID
@MODELS
@PROFILE
@SEEDS
@click.option(
    "--confirm-seeds",
    default=3,
    show_default=True,
    metavar="N",
    help="Number of fresh seeds with which the best variant is trained again to confirm its result; 0 skips this.",
)
@click.option(
    "--output",
    type=PATH,
    metavar="DIR",
    help="Directory for the results (default: a new directory in reports/runs, or the directory of the same run if it "
    "was started before).",
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Time limit of one trial in seconds."
)
@click.option("--fresh", is_flag=True, help="Ignore results of earlier runs: train and answer everything again.")
@click.option(
    "--adapter",
    "adapters",
    type=PATH,
    multiple=True,
    metavar="DIR",
    help="Also score an adapter that was trained elsewhere: a folder saved by PEFT; repeatable.",
)
@click.option(
    "--engine",
    type=click.Choice(sorted(engine.value for engine in Engine)),
    default=Engine.AUTO.value,
    show_default=True,
    help="reference trains one trial at a time with TRL's SFTTrainer; fused trains several trials in one pass; auto "
    "selects fused if several trials share a base model in the same precision.",
)
@click.option(
    "--executor",
    type=click.Choice(sorted(each.value for each in ExecutorName)),
    default=ExecutorName.LOCAL.value,
    show_default=True,
    help="Where workers run: on this machine, or on the nodes of a Ray or a Slurm cluster.",
)
@click.option("--address", metavar="HOST:PORT", help="Address of the Ray cluster (default: as `ray status` finds it).")
@click.option(
    f"{_SLURM}OPTION",
    "slurm",
    multiple=True,
    metavar="VALUE",
    help="Any long option of Slurm's program sbatch, such as --slurm-partition=gpu; repeatable.",
)
@GPUS
@WORKERS
@WIDTH
@click.option("--timeline", is_flag=True, help="Also run the suite's main cases after every epoch.")
@RACE
@click.option(
    "--skip-hopeless",
    is_flag=True,
    help="Skip trials that are predicted to run out of GPU memory. The report marks them as predicted.",
)
@click.option(
    "--budget",
    metavar="TIME",
    help="Time limit of the whole run (2h, 90m, 45s). The most informative trials run first; run the command again to "
    "continue.",
)
@click.option(
    "--sync",
    type=PATH,
    metavar="DIR",
    help="Copy finished trials to this folder, and resume from it on a new machine. Use a folder that outlives the "
    "machine, such as a mounted drive.",
)
@click.option(
    "--track",
    metavar="TRACKER[:PROJECT]",
    help="Give every trial to an experiment tracker, trackio or wandb, when the run ends. Its package must be "
    "installed.",
)
@SKIP_UNSUPPORTED
@ROOT
@ALLOW_CODE
@JUDGE
@QUIET
@click.option("--verbose", is_flag=True, help="Show the log of the worker processes.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_obj
def run(
    words: tuple[str, ...],
    suite: Path,
    grid: str,
    models: tuple[str, ...],
    profile: str,
    seeds: tuple[int, ...],
    confirm_seeds: int,
    output: Path | None,
    timeout: float | None,
    fresh: bool,
    adapters: tuple[Path, ...],
    engine: str,
    executor: str,
    address: str | None,
    slurm: tuple[str, ...],
    gpus: str | None,
    workers: int | None,
    width: int,
    timeline: bool,
    race: bool,
    skip_hopeless: bool,
    budget: str | None,
    sync: Path | None,
    track: str | None,
    skip_unsupported: bool,
    root: Path | None,
    allow_code: bool,
    judge: str | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Train a grid, score the answers and write a report.

    SUITE is a folder with suite.yaml, train.jsonl and grids/. The base model and every trained variant
    answer the suite's cases; the best variant is trained again with fresh seeds to confirm its result. Run
    the same command again to resume: finished trials are reused, and a changed assertion needs no new
    training.
    """
    from harness.cli.runs import run_models
    from harness.runner.budget import seconds
    from harness.runner.executors.choice import executor_for
    from harness.runner.request import Request

    request = Request(
        suite=suite,
        grid=grid,
        model=models[0],
        profile=PROFILES[profile],
        seeds=seeds or None,
        confirm_seeds=confirm_seeds,
        output=output,
        fresh=fresh,
        timeout=timeout,
        skip_unsupported=skip_unsupported,
        root=root,
        allow_code=allow_code,
        judge=judge,
        timeline=timeline,
        adapters=adapters,
        arguments=words,
        skip_predicted_oom=skip_hopeless,
        budget=None if budget is None else seconds(budget),
        sync=sync,
        engine=Engine(engine),
        width=width,
        race=race,
    )

    def executor_that_shows(show: Callable[[str], None] | None) -> Executor:
        return executor_for(
            executor, request.profile, gpus=gpus, workers=workers, address=address, slurm=slurm, show=show
        )

    failures = run_models(
        request, models, executor_that_shows, track=track, quiet=quiet, verbose=verbose, as_json=as_json
    )
    for line in failures:
        echo(line, err=True)
    return TRIAL_FAILED if failures else 0
