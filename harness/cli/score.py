"""`harness score`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import ALLOW_CODE, PATH, ROOT, RUN, SKIP_UNSUPPORTED
from harness.cli.output import echo


@click.command()
@RUN
@click.option(
    "--suite", type=PATH, metavar="SUITE", help="Use the assertions of this suite, not those stored with the run."
)
@SKIP_UNSUPPORTED
@ROOT
@ALLOW_CODE
def score(run: Path, suite: Path | None, skip_unsupported: bool, root: Path | None, allow_code: bool) -> None:
    """Score the stored answers of a run again, without training.

    RUN is the directory of a run. To apply edited assertions, pass --suite. If the run was interrupted, the
    answers that it has stored are scored.
    """
    from harness.report import terminal
    from harness.runner.rescoring import rescore
    from harness.storage.runs import find_run

    store = find_run(run)
    results = rescore(store, suite, skip_unsupported=skip_unsupported, root=root, allow_code=allow_code)
    echo(terminal.summary(results, str(store.report)))
