"""Rows and columns as the page's tables have them, whatever they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.report.rates import Span


@dataclass(frozen=True)
class Cell:
    """What is read, what it is sorted by (last of all where that is empty), and a smaller second line."""

    text: str
    sort: float | str = ""
    under: str = ""
    share: float | None = None
    """Of a bar behind the text, 0 to 1."""
    span: Span | None = None
    """The interval that the bar's end lies in."""


@dataclass(frozen=True)
class Column:
    title: str
    hint: str
    group: str = ""
    number: bool = True


@dataclass(frozen=True)
class Group:
    """Neighbouring columns under one heading."""

    name: str
    span: int


def groups(columns: Sequence[Column]) -> list[Group]:
    runs = groupby(columns, key=lambda column: column.group)
    return [Group(name, len(list(members))) for name, members in runs]


@dataclass(frozen=True)
class Row:
    number: int
    name: str
    chosen: bool
    base: bool
    cells: tuple[Cell, ...]
