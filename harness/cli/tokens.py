"""`harness tokens`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import GRID, MODEL, ROOT, SKIP_UNSUPPORTED, SUITE
from harness.cli.output import echo


@click.command()
@SUITE
@GRID
@MODEL
@SKIP_UNSUPPORTED
@ROOT
@click.option(
    "--show",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    metavar="N",
    help="Number of training rows, and of cases, to show.",
)
@click.option("--ids", is_flag=True, help="List every token on a line of its own, with its position and id.")
def tokens(suite: Path, grid: str, model: str, skip_unsupported: bool, root: Path | None, show: int, ids: bool) -> None:
    """Show training rows and cases as the model gets them.

    SUITE is a folder with suite.yaml, train.jsonl and grids/. A row is shown in parts: the tokens that are
    given, those that are trained, which end where the assistant's turn ends, and those that max_length cuts.
    A case is shown as it is asked; the model continues behind the last token. All rows and cases are checked,
    not only those that are shown. Nothing is trained, and no weights are downloaded, except those of smollm2;
    a GGUF file is converted.
    """
    from harness.cli.token_table import print_tokens
    from harness.models.gguf_bases import Conversions
    from harness.models.token_check import views_named
    from harness.suites import load_suite
    from harness.suites.grids import load_plan

    loaded = load_suite(suite, skip_unsupported=skip_unsupported, root=root)
    planned = load_plan(Path(loaded.folder) / "grids" / f"{grid}.yaml")
    lengths = {variant.settings.max_length for variant in planned.variants}
    conversions = Conversions(report=lambda message: echo(message, err=True))
    turns, views, texts = views_named(loaded, lengths, model, show, conversions=conversions)
    print_tokens(loaded, turns, views, texts, ids=ids)
