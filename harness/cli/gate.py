"""`harness gate`."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import ALLOW_CODE, PATH, RUN
from harness.cli.output import echo

if TYPE_CHECKING:
    from harness.core.regression import Decision

REGRESSION = 1
NOT_COMPARABLE = 4


@click.command()
@RUN
@click.option(
    "--baseline",
    type=PATH,
    required=True,
    metavar="NAME",
    help="Name or file of a baseline, or the directory of another run.",
)
@click.option("--markdown", type=PATH, metavar="FILE", help="Write the verdict as Markdown, for a pull request.")
@click.option("--json", "as_json", type=PATH, metavar="FILE", help="Write the verdict as JSON.")
@click.option("--strict", is_flag=True, help="Exit with 4 if the verdict is inconclusive.")
@ALLOW_CODE
def gate(run: Path, baseline: Path, markdown: Path | None, as_json: Path | None, strict: bool, allow_code: bool) -> int:
    """Compare a run with a baseline and detect regressions.

    RUN is the directory of a run. The exit code is 0 without a regression, 1 with one, and 4 if the run and
    the baseline cannot be compared.
    """
    from harness.analysis.regression import gate as regression_gate
    from harness.analysis.regression import gate_output
    from harness.storage.files import write_text
    from harness.storage.records import write_record
    from harness.storage.runs import find_run

    with _without_garbage_collection():
        decision = regression_gate.run_gate(find_run(run), str(baseline), allow_code=allow_code)
    echo(gate_output.text(decision))
    if os.environ.get("GITHUB_ACTIONS") == "true" and (commands := gate_output.workflow_commands(decision)):
        echo(commands)
    if markdown:
        write_text(markdown, gate_output.markdown(decision))
    if as_json:
        write_record(as_json, decision)
    return exit_code(decision, strict=strict)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, which takes a third of the time with many thousands of records, and frees nothing."""
    were_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if were_on:
            gc.enable()


def exit_code(decision: Decision, *, strict: bool) -> int:
    """Exit code of a verdict. An inconclusive verdict is an error only with `strict`."""
    from harness.core.run_results import Verdict

    codes = {Verdict.REGRESSED: REGRESSION, Verdict.NOT_COMPARABLE: NOT_COMPARABLE}
    return codes.get(decision.verdict, NOT_COMPARABLE if strict and decision.verdict is Verdict.INCONCLUSIVE else 0)
