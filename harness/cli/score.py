"""`harness score`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import ALLOW_CODE, JUDGE, PATH, ROOT, RUN, SKIP_UNSUPPORTED, progress_printer
from harness.cli.output import echo


@click.command()
@RUN
@click.option(
    "--suite", type=PATH, metavar="SUITE", help="Use the assertions of this suite, not those stored with the run."
)
@SKIP_UNSUPPORTED
@ROOT
@ALLOW_CODE
@JUDGE
def score(
    run: Path, suite: Path | None, skip_unsupported: bool, root: Path | None, allow_code: bool, judge: str | None
) -> None:
    """Score the stored answers of a run again, without training.

    RUN is the directory of a run. To apply edited assertions, pass --suite. If the run was interrupted, the
    answers that it has stored are scored. A judge is asked only about answers without a stored verdict.
    """
    from harness.core.job import EventKind
    from harness.report import terminal
    from harness.runner.rescoring import rescore
    from harness.storage.runs import find_run

    store = find_run(run)
    show = progress_printer(quiet=False)
    results = rescore(
        store,
        suite,
        skip_unsupported=skip_unsupported,
        root=root,
        allow_code=allow_code,
        judge=judge,
        on_event=lambda event: show(event.message) if event.kind is EventKind.NOTICED else None,
    )
    echo(terminal.summary(results, str(store.report)))
