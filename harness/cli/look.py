"""Commands that only look: `validate`, `plan`, `schema`. None of them imports what trains."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.places import PLACE

SUITE = click.argument("suite", type=PLACE)
SKIP = click.option(
    "--skip-unsupported", is_flag=True, help="Leave out what promptfoo has and the harness has not; it is counted."
)


def _grid_name(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """Completion and habit give paths and suffixes; a grid is called by its name alone."""
    if Path(name).name != name or name.endswith((".yaml", ".yml")):
        raise click.BadParameter(f"{name!r} names a file. Name the grid alone: --grid {Path(name).stem}")
    return name


def _seeds(_context: click.Context, _option: click.Parameter, seeds: tuple[int, ...]) -> tuple[int, ...]:
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise click.BadParameter(f"{twice[0]} is given twice, and would train the same twice. Name each seed once.")
    return seeds


GRID = click.option(
    "--grid",
    default="quick",
    show_default=True,
    metavar="NAME",
    callback=_grid_name,
    help="A file of SUITE/grids, without .yaml.",
)
MODEL = click.option(
    "--model",
    default="pocket",
    show_default=True,
    metavar="ID|DIR|pocket|shape:NAME",
    help="The base: a model of the Hub (owner/name[@revision]), a folder, the toy model that comes with this, or "
    "random weights in a model's shape (shape:llama-2-7b), which show what fits.",
)
PROFILE = click.option(
    "--profile",
    type=click.Choice(["auto", "cpu", "t4"]),
    default="auto",
    show_default=True,
    help="auto takes a GPU if there is one; t4 holds a larger one to a T4's memory and precision.",
)
SEEDS = click.option(
    "--seed",
    "seeds",
    type=click.IntRange(0, 2**32 - 1),
    multiple=True,
    metavar="N",
    callback=_seeds,
    help="Instead of the grid's seeds; repeatable.",
)


@click.command()
@SUITE
@SKIP
def validate(suite: Path, skip_unsupported: bool) -> None:
    """Check a suite and its grids; says what is wrong and where.

    SUITE is a folder with suite.yaml, train.jsonl and grids/.
    """
    from harness.cli.tables import suite_table
    from harness.grid import load_plan
    from harness.leaks import misplaced
    from harness.suites import load_suite

    loaded = load_suite(suite, skip_unsupported=skip_unsupported)
    plans = [load_plan(path) for path in sorted((Path(loaded.folder) / "grids").glob("*.yaml"))]
    suite_table(loaded, plans, misplaced(loaded))


@click.command()
@SUITE
@GRID
@MODEL
@PROFILE
@SEEDS
@SKIP
def plan(suite: Path, grid: str, model: str, profile: str, seeds: tuple[int, ...], skip_unsupported: bool) -> None:
    """Show the trials that `run` would train, and what they need.

    Memory and time are predicted for the GPU that is here, else for a T4; with --profile cpu they
    are not. Of a model of the Hub no weights are fetched.
    """
    from harness import benchmark
    from harness.cli.tables import plan_table
    from harness.forecast import where
    from harness.grid import load_plan
    from harness.models import check_name
    from harness.provenance import Profile
    from harness.store import Cache
    from harness.suites import load_suite

    loaded = load_suite(suite, skip_unsupported=skip_unsupported)
    planned = load_plan(Path(loaded.folder) / "grids" / f"{grid}.yaml", seeds=seeds or None)
    check_name(model)
    plan_table(loaded, planned, model, where(Profile(profile), Cache(benchmark.CACHE)))


@click.command()
@click.argument("kind", type=click.Choice(["suite", "grid"]), default="suite")
def schema(kind: str) -> None:
    """Print the JSON Schema of suites or of grids, for editors.

    Put `# yaml-language-server: $schema=FILE` on a file's first line.
    """
    from harness.schema import schema_texts

    click.echo(schema_texts()[f"{kind}.schema.json"], nl=False)
