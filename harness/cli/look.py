"""Commands that only look: `validate`, `plan`, `schema`. None of them imports what trains."""

from __future__ import annotations

from pathlib import Path

import click

SUITE = click.argument("suite", type=click.Path(path_type=Path))
SKIP = click.option(
    "--skip-unsupported", is_flag=True, help="Leave out what promptfoo has and the harness has not; it is counted."
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
    from harness.suites import load_suite

    loaded = load_suite(suite, skip_unsupported=skip_unsupported)
    plans = [load_plan(path) for path in sorted((Path(loaded.folder) / "grids").glob("*.yaml"))]
    suite_table(loaded, plans)


@click.command()
@SUITE
@click.option(
    "--grid", default="quick", show_default=True, metavar="NAME", help="A file of SUITE/grids, without .yaml."
)
@click.option("--seed", "seeds", type=int, multiple=True, metavar="N", help="Instead of the grid's seeds; repeatable.")
@SKIP
def plan(suite: Path, grid: str, seeds: tuple[int, ...], skip_unsupported: bool) -> None:
    """Show the trials that `run` would train."""
    from harness.cli.tables import plan_table
    from harness.grid import load_plan
    from harness.suites import load_suite

    loaded = load_suite(suite, skip_unsupported=skip_unsupported)
    planned = load_plan(Path(loaded.folder) / "grids" / f"{grid}.yaml", seeds=seeds or None)
    plan_table(loaded, planned)


@click.command()
@click.argument("kind", type=click.Choice(["suite", "grid"]), default="suite")
def schema(kind: str) -> None:
    """Print the JSON Schema of suites or of grids, for editors.

    Put `# yaml-language-server: $schema=FILE` on a file's first line.
    """
    from harness.schema import schema_texts

    click.echo(schema_texts()[f"{kind}.schema.json"], nl=False)
