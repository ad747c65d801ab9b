"""Commands that ask a run's models again: `chat` and `parity`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from harness.cli.export import SEED, VARIANT
from harness.cli.params import PLACE, Place
from harness.cli.run import CODE, QUIET
from harness.cli.runs import RUN

Ask = Callable[[str], tuple[tuple[str, str], ...]]
"""Takes a question; returns (model name, answer) pairs."""


@click.command()
@RUN
@VARIANT
@SEED
@click.option("--ask", "asked", multiple=True, metavar="TEXT", help="Ask this question and exit; repeatable.")
@click.option(
    "--gguf",
    type=Place(exists=True, dir_okay=False),
    metavar="FILE",
    help="Ask an exported GGUF file with llama.cpp instead.",
)
def chat(run: Path, variant: str, seed: int | None, asked: tuple[str, ...], gguf: Path | None) -> None:
    """Ask questions: base and tuned answers, side by side.

    RUN is a run's directory; VARIANT is a variant's name, or a part of it that no other variant's name
    has. Each question is a new conversation, with the suite's system prompt if it has one.
    """
    from harness.cli.chat_session import answered, at_home, in_torch
    from harness.export.source import find
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE
    from harness.storage.runs import find_run

    source = find(find_run(run), variant, seed, Cache(CACHE))
    with at_home(source, gguf) if gguf else in_torch(source) as ask:
        for question in asked or _typed():
            answered(question, ask(question))


def _typed() -> Iterator[str]:
    """Yield the lines that the user types until end of file, without empty ones."""
    live = sys.stdin.isatty()
    if live:
        click.echo("Type a question; Ctrl-D exits.", err=True)
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
@click.option(
    "--llama-cpp",
    type=PLACE,
    metavar="DIR",
    help="A checkout of llama.cpp with its converter (default: from PATH, else what `harness doctor` installed).",
)
@CODE
@QUIET
def parity(run: Path, variant: str, seed: int | None, llama_cpp: Path | None, allow_code: bool, quiet: bool) -> None:
    """Find where, from adapter to GGUF, answers change.

    RUN is a run's directory; VARIANT is a variant's name, or a part of it that no other variant's name
    has. The suite's prompts are asked again at every stage: NF4 + adapter, merged, reloaded from disk, and
    GGUF in f16, q8_0 and q4_k_m. Assertions whose verdict changes are listed with the stage. The result is
    saved in RUN/parity and shown in the report.
    """
    from harness.cli.chat_session import check_parity
    from harness.cli.export import progress_printer
    from harness.cli.tables import parity_table
    from harness.export.source import find
    from harness.report import report_files
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE
    from harness.storage.runs import find_run

    store, cache = find_run(run), Cache(CACHE)
    with store.locked(), cache.in_use(store.root):
        source = find(store, variant, seed, cache)
        parity_table(check_parity(store, source, llama_cpp, progress_printer(quiet), allow_code=allow_code))
        if store.has_results:
            report_files.rewrite(store)
