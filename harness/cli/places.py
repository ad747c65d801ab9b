"""Paths that a person names, as every command takes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class Place(click.Path):
    """A path at which something may lie or not, but which the system can look at.

    One that it cannot, such as a name of 300 letters, would fail at whatever looks first, and as a bug.
    """

    def __init__(self, *, exists: bool = False, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            pass  # for the command to judge
        except OSError as error:
            self.fail(f"{path}: {error.strerror}. Name another place.", param, ctx)
        return path


PLACE = Place()
