"""`harness bless` and `harness gate`."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.params import PLACE
from harness.cli.run import CODE
from harness.cli.runs import RUN

if TYPE_CHECKING:
    from harness.core.regression import Decision

REGRESSION = 1
NOT_COMPARABLE = 4


@click.command()
@RUN
@click.option("--name", metavar="NAME", help="Name of the baseline (default: SUITE-GRID-MODEL).")
def bless(run: Path, name: str | None) -> None:
    """Save a run as the baseline for later runs.

    RUN is a run's directory. Scores, answers, costs, settings and fingerprints are written to
    reports/baselines/NAME.json, which you commit. It holds no weights and no training rows.
    """
    from harness.analysis.regression.bless import bless as make_baseline
    from harness.storage.runs import find_run

    made = make_baseline(find_run(run), name)
    click.echo(str(made))
    click.echo(f"Commit it. To compare a later run with it: harness gate RUN --baseline {made.stem}", err=True)


@click.command()
@RUN
@click.option(
    "--baseline",
    type=PLACE,
    required=True,
    metavar="NAME",
    help="Name or file of a baseline, or the directory of another run.",
)
@click.option("--markdown", type=PLACE, metavar="FILE", help="Write the verdict as Markdown, for a pull request.")
@click.option("--json", "as_json", type=PLACE, metavar="FILE", help="Write the verdict as JSON.")
@click.option("--strict", is_flag=True, help="Exit with 4 if the verdict is inconclusive.")
@CODE
def gate(run: Path, baseline: Path, markdown: Path | None, as_json: Path | None, strict: bool, allow_code: bool) -> int:
    """Compare a run with a baseline: has anything become worse?

    RUN is a run's directory. Exits with 1 on a regression, and with 4 if the two cannot be compared.
    """
    from harness.analysis.regression import gate as regression_gate
    from harness.analysis.regression import gate_output
    from harness.storage.files import write_text
    from harness.storage.records import write_record
    from harness.storage.runs import find_run

    with _without_collecting():
        decision = regression_gate.run_gate(find_run(run), str(baseline), allow_code=allow_code)
    click.echo(gate_output.text(decision))
    if os.environ.get("GITHUB_ACTIONS") == "true" and (commands := gate_output.workflow_commands(decision)):
        click.echo(commands)
    if markdown:
        write_text(markdown, gate_output.markdown(decision))
    if as_json:
        write_record(as_json, decision)
    return exit_code(decision, strict=strict)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Turn garbage collection off: with tens of thousands of records it takes a third of the time and finds nothing."""
    were_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if were_on:
            gc.enable()


def exit_code(decision: Decision, *, strict: bool) -> int:
    """Exit code of a verdict; inconclusive is 0 unless `strict`."""
    from harness.core.results import Verdict

    codes = {Verdict.REGRESSED: REGRESSION, Verdict.NOT_COMPARABLE: NOT_COMPARABLE}
    return codes.get(decision.verdict, NOT_COMPARABLE if strict and decision.verdict is Verdict.INCONCLUSIVE else 0)
