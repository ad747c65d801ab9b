"""`harness bless` and `harness gate`."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.places import PLACE
from harness.cli.run import CODE
from harness.cli.runs import RUN

if TYPE_CHECKING:
    from harness.records import Decision

REGRESSION = 1
NOT_COMPARABLE = 4


@click.command()
@RUN
@click.option("--name", metavar="NAME", help="What to call it; by default SUITE-GRID-MODEL.")
def bless(run: Path, name: str | None) -> None:
    """Make a run the baseline that later ones are held against.

    RUN is a run's directory. Scores, answers, costs, settings and fingerprints go to
    reports/baselines/NAME.json, to be committed; no weights and no training rows.
    """
    from harness import regression
    from harness.store import find_run

    made = regression.bless(find_run(run), name)
    click.echo(str(made))
    click.echo(f"Commit it. A later run is held against it with: harness gate RUN --baseline {made.stem}", err=True)


@click.command()
@RUN
@click.option(
    "--baseline",
    type=PLACE,
    required=True,
    metavar="NAME",
    help="A baseline's name or file, or another run's directory.",
)
@click.option("--markdown", type=PLACE, metavar="FILE", help="Write the verdict for a pull request.")
@click.option("--json", "as_json", type=PLACE, metavar="FILE", help="Write it for programs.")
@click.option("--strict", is_flag=True, help="Exit with 4 when it is inconclusive.")
@CODE
def gate(run: Path, baseline: Path, markdown: Path | None, as_json: Path | None, strict: bool, allow_code: bool) -> int:
    """Has anything become worse? Hold a run against a baseline.

    RUN is a run's directory. Exits with 1 on a regression, with 4 when the two cannot be compared.
    """
    from harness import regression
    from harness.gate import words
    from harness.store import find_run, write_record, write_text

    with _without_collecting():
        decision = regression.decide(find_run(run), str(baseline), allow_code=allow_code)
    click.echo(words.text(decision))
    if os.environ.get("GITHUB_ACTIONS") == "true" and (commands := words.workflow_commands(decision)):
        click.echo(commands)
    if markdown:
        write_text(markdown, words.markdown(decision))
    if as_json:
        write_record(as_json, decision)
    return exit_code(decision, strict=strict)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """A large run is tens of thousands of small records and no cycle: looking them through is a third of the time."""
    were_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if were_on:
            gc.enable()


def exit_code(decision: Decision, *, strict: bool) -> int:
    """0 is fine, an inconclusive verdict included unless `strict`."""
    from harness.records import Verdict

    codes = {Verdict.REGRESSED: REGRESSION, Verdict.NOT_COMPARABLE: NOT_COMPARABLE}
    return codes.get(decision.verdict, NOT_COMPARABLE if strict and decision.verdict is Verdict.INCONCLUSIVE else 0)
