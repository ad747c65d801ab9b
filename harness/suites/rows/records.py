"""The rows of a file before they are training rows: values by column, with their places, and the mistakes in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from harness.core.errors import Place, SuiteError
from harness.core.wording import listed
from harness.core.yaml import shown

MOST_KINDS = 10
"""Number of different mistakes that one error lists."""
MOST_NUMBERS = 100
"""Number of rows that an error names per mistake."""


class RowError(Exception):
    """What is wrong with a row, and what to do. Its file and line are added by whoever knows them."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


@dataclass(frozen=True)
class Columns:
    """The columns that the user named. None stands for a column with a usual name."""

    prompt: str | None = None
    answer: str | None = None
    leave_out: tuple[str, ...] = ()
    has_options: bool = True
    """Whether the user can name columns with options. If not, remedies say how to change the file."""


USUAL = Columns()
WITHOUT_OPTIONS = Columns(has_options=False)


@dataclass(frozen=True)
class Mistake:
    """A row that cannot be used: its number, the reason and the remedy."""

    number: int
    message: str
    remedy: str = ""
    column: int | None = None
    note: str = ""
    """What only this row has, such as the line of another row. Rows with the same message are listed together."""


@dataclass(frozen=True)
class Record:
    """A row: values by column name, as the file holds them. `number` is its line, or its place among the rows."""

    number: int
    cells: Any


@dataclass
class Records:
    """The rows of a file, those that could not be read, and sentences about how the file was read."""

    file: str
    rows: list[Record] = field(default_factory=list)
    unit: str = "line"
    """What the numbers count: `line`, or `row` for a file whose rows do not lie on lines of their own."""
    mistakes: list[Mistake] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    columns: Columns = USUAL
    """The columns that hold questions and answers: those that the user named, or those of a file without header."""
    read_as: str = ""
    """How a table was read, for errors about its columns: `line 1, read as a table with commas between ...`."""

    @property
    def name(self) -> str:
        """The file's name without its folder, for sentences."""
        return PurePath(self.file).name

    def place(self, number: int) -> Place:
        """Return the place of a row for an error."""
        return Place(self.file, number if self.unit == "line" else None)

    def wrong(self, mistake: Mistake) -> SuiteError:
        """Return the error about one row."""
        place = Place(self.file, mistake.number, mistake.column) if self.unit == "line" else Place(self.file)
        which = "" if self.unit == "line" else f"row {mistake.number}: "
        note = f" ({mistake.note})" if mistake.note else ""
        return SuiteError(f"{which}{mistake.message}{note}", remedy=mistake.remedy, place=place)


def raise_mistakes(records: Records, mistakes: Iterable[Mistake]) -> None:
    """Raise one error about all rows that cannot be used, if there are any. Equal mistakes are listed together."""
    found = sorted(mistakes, key=lambda mistake: mistake.number)
    if not found:
        return
    if len(found) == 1:
        raise records.wrong(found[0])
    kinds: dict[tuple[str, str], list[Mistake]] = {}
    for mistake in found:
        kinds.setdefault((mistake.message, mistake.remedy), []).append(mistake)
    lines = [_kind(records.unit, same) for same in list(kinds.values())[:MOST_KINDS]]
    if len(kinds) > MOST_KINDS:
        rest = sum(map(len, list(kinds.values())[MOST_KINDS:]))
        lines.append(f"and {rest:,} more rows with other mistakes")
    message = "\n".join([f"{len(found):,} rows cannot be used:", *lines])
    raise SuiteError(message, place=records.place(found[0].number))


def _kind(unit: str, same: Sequence[Mistake]) -> str:
    """Return the line about the rows with the same mistake."""
    numbers = [f"{each.number} ({each.note})" if each.note else str(each.number) for each in same]
    units = f"{unit}s" if len(numbers) > 1 else unit
    return f"{units} {listed(numbers, MOST_NUMBERS)}: {same[0].message}  {same[0].remedy}".rstrip()


def has_content(value: Any) -> bool:
    """Whether a cell holds something: text that is not blank, a number, or a list or mapping with anything inside."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, dict):
        return any(map(has_content, value.values()))
    return bool(value) if isinstance(value, list) else value is not None


def named(columns: Sequence[str], most: int = 10) -> str:
    """Return the names of columns in quotation marks for a message, each of limited length."""
    return listed([shown(column) for column in columns], most)
