"""Commands that check a suite: `validate`, `plan`, `schema`. None of them imports a training library."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.params import PLACE
from harness.core.device_profiles import PROFILES, help_text

SUITE = click.argument("suite", type=PLACE)
SKIP = click.option(
    "--skip-unsupported",
    is_flag=True,
    help="Ignore promptfoo features that the harness lacks; they are listed.",
)


def _grid_name(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """Refuse a path or a suffix, as shell completion gives: a grid is named without them."""
    if Path(name).name != name or name.endswith((".yaml", ".yml")):
        raise click.BadParameter(f"{name!r} names a file. Name the grid alone: --grid {Path(name).stem}")
    return name


def _seeds(_context: click.Context, _option: click.Parameter, seeds: tuple[int, ...]) -> tuple[int, ...]:
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise click.BadParameter(f"{twice[0]} is given twice. Name each seed once.")
    return seeds


GRID = click.option(
    "--grid",
    default="quick",
    show_default=True,
    metavar="NAME",
    callback=_grid_name,
    help="A grid in SUITE/grids, without .yaml.",
)
MODEL = click.option(
    "--model",
    default="pocket",
    show_default=True,
    metavar="ID|DIR|pocket|shape:NAME",
    help="Base model: one on the Hub (owner/name[@revision]), a folder, the built-in toy model (pocket), or "
    "random weights in a model's shape (shape:llama-2-7b), to see what fits in memory.",
)
PROFILE = click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default="auto",
    show_default=True,
    help=help_text(),
)
SEEDS = click.option(
    "--seed",
    "seeds",
    type=click.IntRange(0, 2**32 - 1),
    multiple=True,
    metavar="N",
    callback=_seeds,
    help="Replace the grid's seeds; repeatable.",
)


@click.command()
@SUITE
@SKIP
def validate(suite: Path, skip_unsupported: bool) -> None:
    """Check a suite and its grids; show mistakes with their place.

    SUITE is a folder with suite.yaml, train.jsonl and grids/.
    """
    from harness.analysis.contamination import role_warnings
    from harness.cli.tables import suite_table
    from harness.suites import load_suite
    from harness.suites.grids import load_plan

    loaded = load_suite(suite, skip_unsupported=skip_unsupported)
    plans = [load_plan(path) for path in sorted((Path(loaded.folder) / "grids").glob("*.yaml"))]
    suite_table(loaded, plans, role_warnings(loaded))


@click.command()
@SUITE
@GRID
@MODEL
@PROFILE
@SEEDS
@SKIP
def plan(suite: Path, grid: str, model: str, profile: str, seeds: tuple[int, ...], skip_unsupported: bool) -> None:
    """Show the trials that `run` would train, and what they need.

    Memory and time are predicted for this machine's GPU, or for a T4 if it has none; with --profile cpu
    nothing is predicted. For a model on the Hub no weights are downloaded.
    """
    from harness.cli.tables import plan_table
    from harness.hardware.estimate.predictions import target_gpu
    from harness.models.resolving import check_name
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE
    from harness.suites import load_suite
    from harness.suites.grids import load_plan

    loaded = load_suite(suite, skip_unsupported=skip_unsupported)
    planned = load_plan(Path(loaded.folder) / "grids" / f"{grid}.yaml", seeds=seeds or None)
    check_name(model)
    plan_table(loaded, planned, model, target_gpu(PROFILES[profile], Cache(CACHE)))


@click.command()
@click.argument("kind", type=click.Choice(["suite", "grid"]), default="suite")
def schema(kind: str) -> None:
    """Print the JSON Schema of suites or of grids, for editors.

    Put `# yaml-language-server: $schema=FILE` on a file's first line.
    """
    from harness.suites.json_schema import schema_texts

    click.echo(schema_texts()[f"{kind}.schema.json"], nl=False)
