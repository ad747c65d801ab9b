"""`harness export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from harness.cli.places import PLACE
from harness.cli.run import QUIET
from harness.cli.runs import RUN
from harness.wording import listed

if TYPE_CHECKING:
    from harness.export import Source
    from harness.store import RunStore

KINDS = ("adapter", "merged", "gguf", "notebook", "hub")
VARIANT = click.argument("variant")
SEED = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", help="Of the variant's trainings; else the grid's first."
)
LLAMA_CPP = click.option(
    "--llama-cpp",
    type=PLACE,
    metavar="DIR",
    help="A checkout of llama.cpp, whose converter is taken; else PATH, else what `harness doctor` installed.",
)


_ONLY_FOR = {
    "mode": ("merged", "gguf", "hub"),
    "dtype": ("merged", "gguf", "notebook", "hub"),
    "quant": ("gguf",),
    "llama_cpp": ("gguf",),
    "repo": ("hub",),
    "what": ("hub",),
    "public": ("hub",),
    "dry_run": ("hub",),
}


@click.command()
@RUN
@VARIANT
@click.option("--to", "kind", type=click.Choice(KINDS), required=True, help="What to make.")
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
    help="Of merged weights.",
)
@click.option(
    "--quant",
    type=click.Choice(["f16", "q8_0", "q4_k_m"]),
    default="q8_0",
    show_default=True,
    help="Of a GGUF's weights.",
)
@LLAMA_CPP
@click.option("--repo", metavar="OWNER/NAME", help="Of the Hub, for --to hub.")
@click.option(
    "--what",
    type=click.Choice(["adapter", "merged"]),
    default="adapter",
    show_default=True,
    help="To be sent to the Hub.",
)
@click.option("--public", is_flag=True, help="Where --to hub makes the repository, let everybody see it.")
@click.option("--dry-run", is_flag=True, help="Show all that --to hub would send, and send nothing.")
@click.option("--output", type=PLACE, metavar="DIR", help="Instead of a folder in RUN/exports.")
@QUIET
def export(
    run: Path,
    variant: str,
    kind: str,
    seed: int | None,
    mode: str | None,
    dtype: str,
    quant: str,
    llama_cpp: Path | None,
    repo: str | None,
    what: str,
    public: bool,
    dry_run: bool,
    output: Path | None,
    quiet: bool,
) -> None:
    """Make an adapter, merged model, GGUF, notebook or Hub page.

    It needs no GPU. RUN is a run's directory; VARIANT a variant's name, or a part of it that no other has.

    \b
    adapter   the adapter, as PEFT loads it
    merged    base and adapter as one model: by default exactly the one that was evaluated
    gguf      the merged model as one file for llama.cpp
    notebook  for Colab: answers before, training, merging, answers after, with this variant's settings
    hub       the adapter or the merged model with a model card, to a repository, private unless --public

    Stopped, the same command goes on where it was.
    """
    from harness import benchmark
    from harness.engine.merging import check_adapter, merge
    from harness.engine.quiet import quieten
    from harness.export import MergeRequest, to_adapter, to_merged
    from harness.export.gguf import GgufRequest, check_tools, instructions, to_gguf
    from harness.export.notebook import UPLOAD, to_notebook
    from harness.export.source import find
    from harness.records import GgufType, MergeMode
    from harness.store import Cache, find_run

    _check_options(kind)
    if kind == "hub" and not repo:
        raise click.UsageError("--to hub needs --repo OWNER/NAME.")
    quieten()
    store, cache, tell = find_run(run), Cache(benchmark.CACHE), teller(quiet)
    folder = store.root / "exports"
    with store.locked(), cache.in_use(store.root):
        source = find(store, variant, seed, cache)
        to_file = GgufRequest(GgufType(quant), output, llama_cpp)
        to_folder = MergeRequest(None if kind == "gguf" else output, MergeMode(mode) if mode else None, dtype)
        if "adapter" in (kind, what if kind == "hub" else ""):
            made = to_adapter(source, folder, output=output, check=check_adapter)
        elif kind == "notebook":
            made = to_notebook(source, folder, output=output, dtype=dtype)
            tell(UPLOAD)
        elif kind in ("merged", "hub"):
            made = to_merged(source, folder, to_folder, merge=merge, tell=tell)
        else:
            check_tools(source, to_file)
            merged = to_merged(source, folder, to_folder, merge=merge, tell=tell)
            tell(f"llama.cpp makes the GGUF in {quant} (minutes for a 7B)")
            made = to_gguf(source, merged, folder, to_file)
            tell(instructions(run, source, made))
        if kind == "hub":
            click.echo(_sent(store, source, made, str(repo), public=public, dry_run=dry_run))
            return
    click.echo(str(made))


def _check_options(kind: str) -> None:
    """Hold the options that were given to those that change what is made.

    Raises:
        click.UsageError: one would be passed over in silence.
    """
    given = click.get_current_context().get_parameter_source
    for name, kinds in _ONLY_FOR.items():
        if kind not in kinds and given(name) is ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} changes nothing with --to {kind}. It is for --to {listed(kinds)}.")


def _sent(store: RunStore, source: Source, made: Path, repository: str, *, public: bool, dry_run: bool) -> str:
    """All that would be sent, or where it was sent to."""
    from harness.export.card import card, evidence
    from harness.export.folders import RECORD
    from harness.export.upload import Parcel, listing, send
    from harness.records import ExportRecord
    from harness.store import read_record

    record = read_record(made / RECORD, ExportRecord)
    text = card(source, record, evidence(source, store.results()), repository)
    parcel = Parcel(repository, made, text, private=not public)
    return listing(parcel) if dry_run else send(parcel)


def teller(quiet: bool) -> Callable[[str], None]:
    def tell(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    return tell
