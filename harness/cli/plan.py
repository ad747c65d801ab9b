"""`harness plan`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import (
    GPUS,
    GRID,
    JUDGE,
    MODEL,
    PROFILE,
    RACE,
    ROOT,
    SEEDS,
    SKIP_UNSUPPORTED,
    SUITE,
    WIDTH,
    WORKERS,
)
from harness.core.device_profiles import PROFILES


@click.command()
@SUITE
@GRID
@MODEL
@PROFILE
@SEEDS
@GPUS
@WORKERS
@WIDTH
@RACE
@SKIP_UNSUPPORTED
@ROOT
@JUDGE
def plan(
    suite: Path,
    grid: str,
    model: str,
    profile: str,
    seeds: tuple[int, ...],
    gpus: str | None,
    workers: int | None,
    width: int,
    race: bool,
    skip_unsupported: bool,
    root: Path | None,
    judge: str | None,
) -> None:
    """List a grid's trials with predicted memory and time, and the passes in which they are trained.

    SUITE is a folder with suite.yaml, train.jsonl and grids/. Memory and time are predicted for this
    machine's GPU, or for a T4 if the machine has no GPU; with --profile cpu there is no prediction. Rows and
    prompts are checked with the model's tokenizer, and rows that max_length cuts are counted. With --race, it
    also says what a race can save. Nothing is trained, and no weights are downloaded.
    """
    from harness.cli.output import echo
    from harness.cli.passes import pass_lines
    from harness.cli.race_forecast import race_lines
    from harness.cli.tables import plan_table
    from harness.core.engines import Engine
    from harness.core.errors import ModelError
    from harness.hardware.estimate.batches import check_steps
    from harness.hardware.estimate.predictions import named_workload, target_gpu
    from harness.models.resolving import check_name
    from harness.models.token_check import check_named
    from harness.runner.cpu_workers import planned_workers
    from harness.runner.judges import naming
    from harness.runner.places import cpu_places, local_places
    from harness.runner.preparation import engine_of
    from harness.runner.scheduling import planned_composition
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE
    from harness.suites import load_suite
    from harness.suites.grids import load_plan
    from harness.suites.rehearsal import rehearsal_of

    loaded = load_suite(suite, skip_unsupported=skip_unsupported, root=root)
    planned = load_plan(Path(loaded.folder) / "grids" / f"{grid}.yaml", seeds=seeds or None)
    check_steps(loaded, planned)
    rehearsal = rehearsal_of(loaded, planned)
    check_name(model)
    tokens = check_named(loaded, {variant.settings.max_length for variant in planned.variants}, model)
    target, places = (
        target_gpu(PROFILES[profile], Cache(CACHE)),
        local_places(PROFILES[profile], chosen=gpus, workers=workers),
    )
    plan_table(loaded, planned, model, target, tokens, rehearsal)
    try:
        what = named_workload(model, loaded, rehearsal)
    except ModelError:
        what = None
    judged = naming.with_judge(loaded, naming.permitted(loaded) if judge is None else judge)
    for line in filter(None, [naming.notice(judged), naming.outlook(judged, planned)]):
        echo(line)
    rules = planned_composition(planned, what, width, target)
    if what and target is None and workers is None:
        places = cpu_places(planned_workers(what, planned.trials, engine_of(Engine.AUTO, planned), rules))
    for line in pass_lines(planned, rules, places):
        echo(line)
    for line in race_lines(loaded, planned, what, rules, target) if race else ():
        echo(line)
