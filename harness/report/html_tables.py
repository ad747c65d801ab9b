"""Rows, columns and cells of the report's HTML tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.report.pass_rates import Span


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text, its sort key (empty keys come last), and a second line in small type."""

    text: str
    sort: float | str = ""
    under: str = ""
    share: float | None = None
    """Length of the bar below the text, from 0 to 1. None: no bar."""
    span: Span | None = None
    """The confidence interval that is drawn on the bar."""


@dataclass(frozen=True)
class Column:
    """One column of a table: its title, its tooltip, and the group of columns to which it belongs."""

    title: str
    hint: str
    group: str = ""
    number: bool = True
    """Whether the column holds numbers, which are aligned right."""

    @property
    def slug(self) -> str:
        """The class of the columns of this group: its first word. Columns without a group have the empty class."""
        return f"of-{self.group.split()[0].lower()}" if self.group else ""


@dataclass(frozen=True)
class ColumnGroup:
    """Adjacent columns with a common heading."""

    name: str
    span: int
    """The number of columns."""
    slug: str
    """The class of the columns."""


def column_groups(columns: Sequence[Column]) -> list[ColumnGroup]:
    """Join adjacent columns of the same group."""
    runs = [(name, list(members)) for name, members in groupby(columns, key=lambda column: column.group)]
    return [ColumnGroup(name, len(members), members[0].slug) for name, members in runs]


@dataclass(frozen=True)
class TableRow:
    """The row of one variant, or of the base model, with its cells in the order of the table's columns."""

    number: int
    name: str
    chosen: bool
    """Whether this is the best variant."""
    base: bool
    """Whether this is the base model."""
    cells: tuple[Cell, ...]
    printed: bool = True
    """Whether the row is also on paper."""
    under: str = ""
    """What stands below the name in small type."""
