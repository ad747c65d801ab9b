"""`harness validate`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import JUDGE, ROOT, SKIP_UNSUPPORTED, SUITE


@click.command()
@SUITE
@SKIP_UNSUPPORTED
@ROOT
@JUDGE
def validate(suite: Path, skip_unsupported: bool, root: Path | None, judge: str | None) -> None:
    """Check a suite and its grids for mistakes.

    SUITE is a folder with suite.yaml, train.jsonl and grids/. For the first mistake, the file, the line and a
    remedy are printed. Nothing is trained.
    """
    from harness.analysis import power
    from harness.analysis.case_checks import case_warnings
    from harness.analysis.contamination import role_warnings
    from harness.cli.tables import suite_table
    from harness.hardware.estimate.batches import check_steps
    from harness.runner.judges import naming
    from harness.runner.preparation import check_compiles
    from harness.suites import load_suite
    from harness.suites.grids import load_plan
    from harness.suites.rehearsal import load_pool, rehearsal_of

    loaded = load_suite(suite, skip_unsupported=skip_unsupported, root=root)
    check_compiles(loaded)
    plans = [load_plan(path) for path in sorted((Path(loaded.folder) / "grids").glob("*.yaml"))]
    load_pool(Path(loaded.folder))
    for plan in plans:
        check_steps(loaded, plan)
        rehearsal_of(loaded, plan)
    judged = naming.with_judge(loaded, naming.permitted(loaded) if judge is None else judge)
    about_judge = (naming.notice(judged), *(naming.outlook(judged, plan) for plan in plans))
    warnings = (*role_warnings(loaded), *case_warnings(loaded), *filter(None, [power.outlook(loaded), *about_judge]))
    suite_table(loaded, plans, warnings)
