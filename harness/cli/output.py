"""Print to the terminal: everything that a command prints passes through here, without control characters."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import click
from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from harness.core.errors import StoreError
from harness.core.outside_text import visible


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text on standard output, or with `err` on standard error. If that is full or closed, drop the message.

    Raises:
        BrokenPipeError: nobody reads standard output anymore.
        StoreError: standard output cannot be written, for example because it is a file on a full disk.
    """
    try:
        click.echo(visible(str(text)), err=err, nl=nl)
    except OSError as error:
        discard_rest(err=err)
        if err:
            return
        if error.errno == errno.EPIPE:
            raise
        what = f"cannot print the output: {error.strerror or error}"
        raise StoreError(what, remedy="Redirect it to another place, then run the same command again.") from error


def discard_rest(*, err: bool = False) -> None:
    """Discard what an output that failed still buffers. Otherwise Python fails to write it at exit, with 120."""
    stream = sys.stderr if err else sys.stdout
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def show_error(error: click.ClickException) -> None:
    """Print click's message about wrong usage of a command."""
    message = io.StringIO()
    error.show(message)
    echo(message.getvalue(), err=True, nl=False)


class Output(Console):
    """A console of rich, without markup in texts. In a pipe, lines of tables are not wrapped."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "highlight": False, "emoji": False, **options})
        if not self.is_terminal and "width" not in options:
            self.width = 200

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
