"""Print to the terminal: everything that a command prints passes through here, without control characters."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from harness.core.outside_text import visible


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text on standard output, or with `err` on standard error."""
    click.echo(visible(str(text)), err=err, nl=nl)


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
