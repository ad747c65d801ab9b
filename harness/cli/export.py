"""`harness export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from harness.cli.runs import RUN

VARIANT = click.argument("variant")
SEED = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", help="Of the variant's trainings; else the grid's first."
)


@click.command()
@RUN
@VARIANT
@click.option("--to", "kind", type=click.Choice(["adapter", "merged"]), required=True, help="What to make; see above.")
@SEED
@click.option(
    "--mode",
    type=click.Choice(["nf4-exact", "fp16-base"]),
    help="What the adapter is added to: the base as it was evaluated (default), or its original weights.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "bfloat16", "float32"]),
    default="float16",
    show_default=True,
    help="Of the merged weights.",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="Instead of a directory in RUN/exports.")
@click.option("--quiet", is_flag=True, help="No progress.")
def export(
    run: Path, variant: str, kind: str, seed: int | None, mode: str | None, dtype: str, output: Path | None, quiet: bool
) -> None:
    """Make a variant's adapter or its merged model; needs no GPU.

    RUN is a run's directory; VARIANT a variant's name, or a part of it that no other has.

    \b
    --to adapter   the adapter, as PEFT loads it
    --to merged    base and adapter as one model: by default exactly the one that was evaluated

    Stopped, the same command goes on where it was.
    """
    from harness import benchmark
    from harness.export import MergeRequest, to_adapter, to_merged
    from harness.export.source import find
    from harness.records import MergeMode
    from harness.store import Cache, find_run

    store = find_run(run)
    with store.locked():
        source = find(store, variant, seed, Cache(benchmark.CACHE))
        folder = store.root / "exports"
        from harness.engine.merging import check_adapter, merge

        if kind == "adapter":
            made = to_adapter(source, folder, output=output, check=check_adapter)
        else:
            request = MergeRequest(output, MergeMode(mode) if mode else None, dtype)
            made = to_merged(source, folder, request, merge=merge, tell=_tell(quiet))
    click.echo(str(made))


def _tell(quiet: bool) -> Callable[[str], None]:
    def tell(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    return tell
