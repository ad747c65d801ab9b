"""Read training rows in the forms that people have: the only place that decides in what form a file's rows are.

`harness new` and `train: file://NAME` read with `read_rows`. The data decide, not the file's name:

file_kinds     bytes -> text, or an error about what the file is
parquet        Parquet -> JSON, in a child process with limits
json_records   JSON in lines, lists and objects -> records
tables         CSV, TSV, exports of Anki and Quizlet -> records
columns        names of columns -> what each is for
answers        several answers -> the right or best one
conversations  a record -> the messages of training rows
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.core.suite import Example, Message
from harness.core.wording import plural
from harness.suites.rows.columns import Layout, layout_of, lists_in
from harness.suites.rows.conversations import Counts, check_cells, conversations_of
from harness.suites.rows.file_kinds import PARQUET, check_kind, text_of
from harness.suites.rows.json_records import is_json, json_records
from harness.suites.rows.parquet import parquet_text
from harness.suites.rows.records import (
    USUAL,
    WITHOUT_OPTIONS,
    Columns,
    Mistake,
    Record,
    Records,
    RowError,
    named,
    raise_mistakes,
)
from harness.suites.rows.tables import table_records

__all__ = [
    "USUAL",
    "WITHOUT_OPTIONS",
    "Columns",
    "Layout",
    "Mistake",
    "ReadRows",
    "Records",
    "named",
    "raise_mistakes",
    "read_rows",
]


MOST_ROW = 4 * 2**20
"""Largest number of characters in the conversations of one row."""
MOST_TEXT = 256 * 2**20
"""Largest number of characters of all rows. A passage of SQuAD counts once for each question about it."""


@dataclass(frozen=True)
class ReadRows:
    """Training rows, sentences about what was left out or guessed, and the records for errors about rows."""

    examples: tuple[Example, ...]
    notices: tuple[str, ...]
    records: Records
    mistakes: tuple[Mistake, ...]
    """Rows that cannot be used."""
    layouts: tuple[Layout, ...]
    """What the columns are for, for each of the different rows."""


def read_rows(data: bytes, file: str, columns: Columns = USUAL) -> ReadRows:
    """Read training rows from the content of a file. Texts keep the white space at their ends, except cells of tables.

    Several examples have the same line if a row has several wordings of one question. Errors call the file `file`.

    Raises:
        SuiteError: the file holds no rows at all. Single rows that cannot be used are returned as `mistakes`.
    """
    records = _records(data, file, columns)
    reader = _Reader(records)
    examples = tuple(reader.examples())
    notices = (*records.notices, *_notices(reader.counts, records))
    mistakes = (*records.mistakes, *reader.mistakes)
    return ReadRows(examples, notices, records, mistakes, tuple(reader.layouts.values()))


def _records(data: bytes, file: str, columns: Columns) -> Records:
    check_kind(data, file)
    if data.startswith(PARQUET):
        records = json_records(parquet_text(data, file), file)
        records.unit, records.columns = "row", columns
        return records
    text, guessed = text_of(data, file)
    records = json_records(text, file) if is_json(text) else table_records(text, file, columns)
    if is_json(text):
        records.columns = columns
    records.notices[:0] = guessed
    return records


class _Reader:
    """Makes training examples of records, and collects those that cannot be used."""

    def __init__(self, records: Records) -> None:
        self.records, self.columns = records, records.columns
        self.layouts: dict[tuple[tuple[str, ...], tuple[str, ...]], Layout] = {}
        self.counts, self.mistakes = Counts(), list[Mistake]()

    def examples(self) -> Iterator[Example]:
        length = 0
        for record in self.records.rows:
            try:
                found = self._conversations(record)
            except RowError as problem:
                self.mistakes.append(Mistake(record.number, problem.message, problem.remedy))
                continue
            own = sum(len(message.content) for messages in found for message in messages)
            if own > MOST_ROW:
                what = f"has more than {MOST_ROW:,} characters"
                self.mistakes.append(Mistake(record.number, what, "Divide it into several rows."))
                continue
            length += own
            if length > MOST_TEXT:
                what = f"the rows up to here have more than {MOST_TEXT:,} characters"
                raise self.records.wrong(Mistake(record.number, what, "Take a sample of them."))
            yield from (Example(messages, record.number) for messages in found)

    def _conversations(self, record: Record) -> list[tuple[Message, ...]]:
        cells = record.cells
        if isinstance(cells, list) and cells and all(isinstance(each, dict) for each in cells):
            cells = {"messages": cells}
        if not isinstance(cells, dict):
            raise RowError(
                "is not a row with named values", 'Write {"prompt": ..., "completion": ...} or {"messages": [...]}.'
            )
        try:
            layout = self._layout(cells)
        except RowError as problem:
            is_unnamed = problem.message.startswith("there is no column") and "Name one with" not in problem.remedy
            if is_unnamed and any(map(_is_nested, cells.values())):
                remedy = 'Write each row with texts alone: {"question": "...", "answer": "..."}.'
                raise RowError(problem.message, f"The columns are: {named(list(cells))}. {remedy}") from None
            raise
        if self.records.read_as:
            check_cells(cells, layout)
        return conversations_of(cells, layout, self.columns, self.counts)

    def _layout(self, cells: dict[str, object]) -> Layout:
        names = tuple(cells)
        lists = lists_in(cells)
        if (names, lists) not in self.layouts:
            self.layouts[names, lists] = layout_of(names, self.columns, lists=lists, read_as=self.records.read_as)
        return self.layouts[names, lists]


def _is_nested(value: object) -> bool:
    """Whether a value holds mappings, so that no option can make a question or an answer of it."""
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict) for each in value))


def _notices(counts: Counts, records: Records) -> Iterator[str]:
    if counts.columns:
        what = "column" if len(counts.columns) == 1 else "columns"
        yield f"Left out of {records.name}: the {what} {named(list(counts.columns))}."
    if counts.message_keys:
        yield f"Left out of the messages in {records.name}: {named(sorted(counts.message_keys))}."
    if counts.further_answers:
        yield f"Only the first of several answers is trained: {plural(counts.further_answers, 'row')}."
    if counts.without_roles:
        said = plural(counts.without_roles, "conversation does", "conversations do")
        yield f"{said} not say who speaks, so the first text is read as the user's, and the next as the assistant's."
    if counts.incomplete:
        yield f"Left out, because their list of questions or answers is empty: {plural(counts.incomplete, 'row')}."
    if counts.empty:
        yield f"Left out, because they are empty: {plural(counts.empty, 'row')}."
