"""Commands on finished runs and the cache: `score`, `report`, `recommend`, `clean`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from harness.cli.check import SKIP
from harness.cli.params import PLACE
from harness.cli.run import CODE

RUN = click.argument("run", type=PLACE)


@click.command()
@RUN
@click.option(
    "--suite", type=PLACE, metavar="SUITE", help="Use the assertions of this suite instead of the run's copy."
)
@SKIP
@CODE
def score(run: Path, suite: Path | None, skip_unsupported: bool, allow_code: bool) -> None:
    """Score a run's stored answers again; trains nothing.

    RUN is a run's directory. To apply edited assertions, pass --suite. An interrupted run is scored as
    far as it has answers.
    """
    from harness.report import terminal
    from harness.runner import benchmark
    from harness.storage.runs import find_run

    store = find_run(run)
    results = benchmark.rescore(store, suite, skip_unsupported=skip_unsupported, allow_code=allow_code)
    click.echo(terminal.summary(results, str(store.report)))


@click.command()
@RUN
@click.argument("later", type=PLACE, required=False)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "md", "csv"]),
    default="html",
    show_default=True,
    help="html writes a page; md prints a summary for a pull request; csv writes tables.",
)
@click.option("--output", type=PLACE, metavar="PATH", help="Output file, or directory for csv.")
@CODE
def report(run: Path, later: Path | None, kind: str, output: Path | None, allow_code: bool) -> None:
    """Write a run's page again, or one that compares two runs.

    RUN is a run's directory. With LATER, the directory of another run, the page compares the two.
    """
    from harness.report import report_files

    form = report_files.Format(kind)
    if later is None:
        click.echo(report_files.of_run(run, form, output))
    else:
        click.echo(report_files.of_two(run, later, form, output, allow_code=allow_code))


@click.command()
@RUN
@click.option(
    "--max-memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GIB",
    help="Limit of GPU memory.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="Limit of training time in GPU minutes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the recommendation as JSON.")
def recommend(run: Path, max_memory: float | None, max_minutes: float | None, as_json: bool) -> None:
    """Say which settings a run recommends, and why, or why none.

    RUN is a run's directory. The recommendation is the cheapest variant within one standard error of the
    best, among those that lose nothing the base could do. Fresh seeds and held-out cases must have
    confirmed it. The limits apply to figures measured on the run's GPU; a run on a CPU has none.
    """
    from harness.analysis.recommendation import recommend
    from harness.analysis.selection import Caps
    from harness.report import terminal
    from harness.storage.runs import find_run

    found = recommend(find_run(run).results(), Caps(max_memory, max_minutes))
    click.echo(json.dumps(asdict(found), indent=1) if as_json else terminal.advice(found))


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def clean(yes: bool) -> None:
    """Show what the cache holds, and delete it.

    Runs and their reports are kept. Deleted trainings are trained again when a run needs them.
    """
    from harness.cli.tables import cache_table
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE

    cache = Cache(CACHE)
    held = cache.held()
    cache_table(cache.root, held)
    if not any(part.bytes for part in held):
        return
    if yes or click.confirm("Delete it?"):
        cache.clear()
        click.echo("Deleted.")
