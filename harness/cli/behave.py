"""Commands that ask trained models again: `chat` and `parity`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from harness.cli.export import LLAMA_CPP, SEED, VARIANT
from harness.cli.places import Place
from harness.cli.run import CODE, QUIET
from harness.cli.runs import RUN

Ask = Callable[[str], tuple[tuple[str, str], ...]]
"""A question to answers, each under the name of who gave it."""


@click.command()
@RUN
@VARIANT
@SEED
@click.option("--ask", "asked", multiple=True, metavar="TEXT", help="Ask this and end; repeatable.")
@click.option(
    "--gguf",
    type=Place(exists=True, dir_okay=False),
    metavar="FILE",
    help="Ask an exported GGUF file instead, by llama.cpp, as it is asked at home.",
)
def chat(run: Path, variant: str, seed: int | None, asked: tuple[str, ...], gguf: Path | None) -> None:
    """Ask anything: base and tuned answer, side by side.

    RUN is a run's directory; VARIANT a variant's name, or a part of it that no other has. Every question
    stands alone, behind the suite's system prompt if it has one, as the suite's cases do.
    """
    from harness import benchmark
    from harness.cli.chatting import answered, at_home, in_torch
    from harness.export.source import find
    from harness.store import Cache, find_run

    source = find(find_run(run), variant, seed, Cache(benchmark.CACHE))
    with at_home(source, gguf) if gguf else in_torch(source) as ask:
        for question in asked or _typed():
            answered(question, ask(question))


def _typed() -> Iterator[str]:
    """Lines until there are no more; an empty one is passed over."""
    live = sys.stdin.isatty()
    if live:
        click.echo("Ask anything; Ctrl-D ends.", err=True)
    while True:
        if live:
            click.echo("\n> ", err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


@click.command()
@RUN
@VARIANT
@SEED
@LLAMA_CPP
@CODE
@QUIET
def parity(run: Path, variant: str, seed: int | None, llama_cpp: Path | None, allow_code: bool, quiet: bool) -> None:
    """Find where, from adapter to GGUF, a behaviour changes.

    RUN is a run's directory; VARIANT a variant's name, or a part of it that no other has. The suite is
    asked again at every stage: NF4 + adapter, merged, reloaded from disk, and GGUF in f16, q8_0 and q4_k_m;
    each assertion that changes is named with its stage. Kept in RUN/parity, and in the report from then on.
    """
    from harness import benchmark
    from harness.cli.chatting import climbed
    from harness.cli.export import teller
    from harness.export.source import find
    from harness.parity import table
    from harness.store import Cache, find_run

    store, cache = find_run(run), Cache(benchmark.CACHE)
    with store.locked(), cache.in_use(store.root):
        source = find(store, variant, seed, cache)
        click.echo(table(climbed(store, source, llama_cpp, teller(quiet), allow_code=allow_code)))
        if store.has_results:
            benchmark.rewrite(store)
