"""Commands on what is there already: `score`, `report`, `recommend`, `clean`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from harness.cli.look import SKIP
from harness.cli.places import PLACE
from harness.cli.run import CODE

RUN = click.argument("run", type=PLACE)


@click.command()
@RUN
@click.option("--suite", type=PLACE, metavar="SUITE", help="Take the assertions from here, not from the run.")
@SKIP
@CODE
def score(run: Path, suite: Path | None, skip_unsupported: bool, allow_code: bool) -> None:
    """Score a run's stored answers again; trains nothing.

    RUN is a run's directory. Edited assertions count with --suite; a run that was interrupted is
    scored as far as it got.
    """
    from harness import benchmark, frame
    from harness.store import find_run

    store = find_run(run)
    results = benchmark.rescore(store, suite, skip_unsupported=skip_unsupported, allow_code=allow_code)
    click.echo(frame.summary(results, str(store.report)))


@click.command()
@RUN
@click.argument("later", type=PLACE, required=False)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "md", "csv"]),
    default="html",
    show_default=True,
    help="A page; a summary for a pull request, printed; the tables, as files.",
)
@click.option("--output", type=PLACE, metavar="PATH", help="A file, or for csv a directory.")
@CODE
def report(run: Path, later: Path | None, kind: str, output: Path | None, allow_code: bool) -> None:
    """Write a run's page again, or one that compares two runs.

    RUN is a run's directory. With LATER, another one, both stand on one page.
    """
    from harness import reporting

    form = reporting.Format(kind)
    if later is None:
        click.echo(reporting.of_run(run, form, output))
    else:
        click.echo(reporting.of_two(run, later, form, output, allow_code=allow_code))


@click.command()
@RUN
@click.option(
    "--max-memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GIB",
    help="GPU memory that it may take.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="GPU minutes that it may train.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def recommend(run: Path, max_memory: float | None, max_minutes: float | None, as_json: bool) -> None:
    """Say which settings a run recommends, and why, or why none.

    RUN is a run's directory. Of the variants that keep what the base could do, it is the cheapest
    within one standard error of the best; fresh seeds and held-out cases must have confirmed it. Caps
    count figures of the GPU that the run was on; where it was on a CPU, nothing shows what a GPU takes.
    """
    from harness import benchmark, frame
    from harness.recommend import Caps
    from harness.store import find_run

    found = benchmark.recommendation(find_run(run), Caps(max_memory, max_minutes))
    click.echo(json.dumps(asdict(found), indent=1) if as_json else frame.advice(found))


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(yes: bool) -> None:
    """Say what the cache holds, and free it.

    Runs and their reports stay. What is freed is trained again when a run needs it.
    """
    from harness import benchmark
    from harness.cli.tables import cache_table
    from harness.store import Cache

    cache = Cache(benchmark.CACHE)
    held = cache.held()
    cache_table(cache.root, held)
    if not any(part.bytes for part in held):
        return
    if yes or click.confirm("Free it?"):
        cache.clear()
        click.echo("Freed.")
