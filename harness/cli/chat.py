"""`harness chat`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from harness.cli.options import RUN, TRAINING_SEED, VARIANT, PathType
from harness.cli.output import echo


@click.command()
@RUN
@VARIANT
@TRAINING_SEED
@click.option("--ask", "questions", multiple=True, metavar="TEXT", help="Ask this question and exit; repeatable.")
@click.option(
    "--gguf",
    type=PathType(exists=True, dir_okay=False),
    metavar="FILE",
    help="Ask only this exported GGUF file, with llama.cpp, instead of the base model and the variant.",
)
@click.option(
    "--lora",
    "loras",
    type=PathType(exists=True, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="Ask the GGUF file with this adapter, too, made with --to gguf-lora; repeatable.",
)
def chat(
    run: Path, variant: str, seed: int | None, questions: tuple[str, ...], gguf: Path | None, loras: tuple[Path, ...]
) -> None:
    """Ask the base model and a variant, and compare answers.

    RUN is the directory of a run. VARIANT is the name of a variant, or any part of the name that identifies
    it. Each question starts a new conversation, with the suite's system prompt if it has one.
    """
    if loras and not gguf:
        raise click.UsageError("--lora needs --gguf FILE: the base model's GGUF file.")
    from harness.cli.chat_session import gguf_session, print_answers, torch_session
    from harness.export.source import find
    from harness.export.targets.gguf_lora import check_base_file
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE
    from harness.storage.runs import find_run

    source = find(find_run(run), variant, seed, Cache(CACHE))
    if gguf and loras:
        check_base_file(run, source, gguf)
    with gguf_session(source, gguf, loras) if gguf else torch_session(source) as ask:
        for question in questions or _typed_lines():
            print_answers(question, ask(question))


def _typed_lines() -> Iterator[str]:
    """Yield the non-empty lines of standard input."""
    live = sys.stdin.isatty()
    if live:
        echo("Type a question; Ctrl-D exits.", err=True)
    while True:
        if live:
            echo("\n> ", err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
