"""Write rows of settings as the text of a grid file, with the reason of each row in a comment above it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.core.outside_text import visible
from harness.core.setting_text import number, word_for
from harness.core.settings import AXES, Settings
from harness.core.trainer_arguments import plain
from harness.suites.new.write_suite import quoted

WIDTH = 100


@dataclass(frozen=True)
class GridRow:
    """A variant of a grid: its name, complete settings, and the reason for which it is in the grid."""

    name: str
    settings: Settings
    reason: str


def grid_text(description: str, seeds: Sequence[int], rows: Sequence[GridRow]) -> str:
    """Return the text of a grid with these rows. Read as a grid, it has exactly their names and settings."""
    written = [_written(row.settings) for row in rows]
    common = {name: value for name, value in written[0].items() if all(own[name] == value for own in written)}
    defaults = _written(Settings())
    shared = [f"  {name}: {value}\n" for name, value in common.items() if value != defaults[name]]
    return "".join([
        f"description: {quoted(' '.join(visible(description).split()))}\n",
        f"seeds: [{', '.join(map(str, seeds))}]\n",
        *(["settings:\n", *shared] if shared else []),
        "rows:\n",
        *(line for row, own in zip(rows, written, strict=True) for line in _row(row, own, common)),
    ])  # fmt: skip


def _row(row: GridRow, own: Mapping[str, str], common: Mapping[str, str]) -> Iterator[str]:
    for line in textwrap.wrap(" ".join(visible(row.reason).split()), WIDTH):
        yield f"  # {line}\n"
    differing = [f"{name}: {value}" for name, value in own.items() if name not in common]
    yield f"  - {{{', '.join([f'name: {quoted(row.name)}', *differing])}}}\n"


def _written(settings: Settings) -> dict[str, str]:
    """Return all settings as YAML. An alpha of twice the rank is written as 0, which follows the rank."""
    given = replace(settings, alpha=0) if settings.alpha == 2 * settings.rank else settings
    return {name: _value(plain(getattr(given, name))) for name in AXES} | (
        {} if given.lr_scheduler_kwargs else {"lr_scheduler_kwargs": "{}"}
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_value(each)}' for name, each in value.items())}}}"
    if isinstance(value, list):
        return word_for(tuple(value)) or f"[{', '.join(map(_value, value))}]"
    return quoted(str(value))
