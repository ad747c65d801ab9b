"""`harness notebook`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from harness.cli.options import GRID, MODEL, PATH, QUIET, ROOT, SKIP_UNSUPPORTED, TRAINING_SEED, progress_printer
from harness.cli.output import echo

if TYPE_CHECKING:
    from harness.export.notebook.contents import Contents

OF_SUITE = ("grid", "model", "skip_unsupported", "root")
"""Options that have no effect on the notebook of a run, which has its own grid and model."""


@click.command()
@click.argument("source", type=PATH, metavar="SUITE|RUN")
@click.argument("variant", required=False)
@GRID
@click.option("--row", metavar="NAME", help="Variant to train, or any part of its name that identifies it.")
@MODEL
@TRAINING_SEED
@click.option(
    "--output",
    type=PATH,
    metavar="FILE",
    help="Notebook to write (default: SUITE-VARIANT-seedN.ipynb in the current folder). Existing files are never "
    "changed.",
)
@SKIP_UNSUPPORTED
@ROOT
@QUIET
def notebook(
    source: Path,
    variant: str | None,
    grid: str,
    row: str | None,
    model: str,
    seed: int | None,
    output: Path | None,
    skip_unsupported: bool,
    root: Path | None,
    quiet: bool,
) -> None:
    """Write a notebook for Colab and Kaggle that trains a variant.

    The notebook installs what it needs, asks the base model the suite's main cases, trains, merges, asks again,
    and scores all answers by the suite's own assertions. SUITE is a folder with suite.yaml, train.jsonl and
    grids/, and --row names a variant of its grid: no run is needed. RUN is the directory of a run, and VARIANT
    the name of a variant (default: the one that the run chose) or any part of it. Nothing is trained, and no
    weights are downloaded, except those of smollm2.
    """
    from harness.export.notebook.cells import UPLOAD, notices, write

    show = progress_printer(quiet)
    if _is_run(source):
        if row is not None:
            raise click.UsageError(f"--row is for a suite. Name the run's variant after it: {_words(source, row)}.")
        contents = _of_run(source, variant, seed)
    elif variant is not None:
        raise click.UsageError(f"{variant!r} follows a suite. Name the variant of a grid with --row.")
    else:
        contents = _of_suite(source, grid, row, model, seed, skip_unsupported, root, show)
    written = write(contents, output)
    for line in (*notices(contents), UPLOAD):
        show(line)
    echo(str(written))


def _words(run: Path, variant: str) -> str:
    return shlex.join(["harness", "notebook", str(run), variant])


def _is_run(source: Path) -> bool:
    return (source / "run.json").is_file() or source.name in ("run.json", "results.json")


def _of_run(run: Path, variant: str | None, seed: int | None) -> Contents:
    from harness.export.notebook.contents import of_run
    from harness.storage.runs import find_run

    given = click.get_current_context().get_parameter_source
    for name in OF_SUITE:
        if given(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} changes nothing for a run, which has its own.")
    return of_run(find_run(run), variant, seed)


def _of_suite(
    suite: Path,
    grid: str,
    row: str | None,
    model: str,
    seed: int | None,
    skip_unsupported: bool,
    root: Path | None,
    show: Callable[[str], None],
) -> Contents:
    from harness.export.notebook.contents import of_suite
    from harness.runner.preparation import check_trainable
    from harness.suites import load_suite
    from harness.suites.grids import load_plan
    from harness.suites.rehearsal import rehearsal_of

    loaded = load_suite(suite, skip_unsupported=skip_unsupported, root=root)
    check_trainable(loaded)
    planned = load_plan(Path(loaded.folder) / "grids" / f"{grid}.yaml")
    return of_suite(loaded, planned, rehearsal_of(loaded, planned), row, model, seed, show)
