"""Rows and columns of the page's tables, whatever they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.report.rates import Span


@dataclass(frozen=True)
class Cell:
    """One cell: its text, its sort key (an empty one sorts last), and a smaller second line."""

    text: str
    sort: float | str = ""
    under: str = ""
    share: float | None = None
    """Length of the bar behind the text, from 0 to 1."""
    span: Span | None = None
    """The interval drawn at the bar's end."""


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
class TableRow:
    """One variant's (or the base's) row of a table, its cells in the order of the table's columns."""

    number: int
    name: str
    chosen: bool
    base: bool
    cells: tuple[Cell, ...]
