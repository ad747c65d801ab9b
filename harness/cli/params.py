"""The parameter type of paths, for all commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class Place(click.Path):
    """A path that may exist or not, but that the system can check.

    A path that it cannot check, such as a name of 300 letters, is a usage error.
    """

    def __init__(self, *, exists: bool = False, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            pass  # the command decides
        except OSError as error:
            self.fail(f"{path}: {error.strerror}. Name another place.", param, ctx)
        return path


PLACE = Place()
