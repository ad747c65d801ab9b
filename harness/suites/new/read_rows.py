"""Read questions and answers from a CSV, TSV or JSONL file as training rows for `harness new`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from harness.analysis.contamination import words
from harness.core.errors import HarnessError, Place, SuiteError
from harness.core.suite import Example, Message
from harness.core.yaml import Document, as_written, fit, raise_all, shown
from harness.suites.case_files import csv_lines, json_rows
from harness.suites.forms import ExampleForm

PROMPTS = ("question", "prompt", "instruction", "input", "user")
ANSWERS = ("answer", "completion", "output", "response", "assistant")
CONTEXT = "input"
"""Name of the column that continues the question in a table with an instruction column (Alpaca's format)."""
DELIMITERS = ",;\t"
"""Delimiters of cells. Spreadsheets write semicolons in countries where the comma is the decimal mark."""
TOO_LONG = 6000
"""Maximum number of characters of a row. They are about 1,500 tokens, too many to train a 7B model on a T4."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns with questions and with answers. None stands for the first column with a usual name."""

    prompt: str | None = None
    answer: str | None = None


USUAL = Columns()


@dataclass(frozen=True)
class Rows:
    """Training rows, each with its line in the file, and sentences about rows that were left out."""

    examples: tuple[Example, ...]
    left_out: tuple[str, ...] = ()


def parse_rows(text: str, file: str, columns: Columns = USUAL) -> Rows:
    """Read training rows from the text of a file.

    Raises:
        SuiteError: the file is not a table of questions and answers, a row is incomplete or too long, or a question
            has two different answers.
    """
    reader = {".csv": _table, ".tsv": _table, ".jsonl": _lines, ".ndjson": _lines}.get(PurePath(file).suffix.lower())
    if reader is None:
        remedy = "Save a spreadsheet as CSV (UTF-8), or write one JSON object per line into a .jsonl file."
        raise SuiteError("rows are read from .csv, .tsv and .jsonl files", remedy=remedy, place=Place(file))
    found, problems = [], []
    for row in reader(text, file, columns):
        try:
            found.append(row())
        except HarnessError as problem:
            problems.append(problem)
    raise_all(problems)
    return _checked([example for example in found if example], file, empty=found.count(None))


class _Row:
    """A row of a table; calling it returns the training example, or None for an empty row."""

    def __init__(self, cells: Mapping[str, Any], place: Place, columns: Columns) -> None:
        self.cells = {name.strip().lower(): cell for name, cell in cells.items()}
        self.place, self.columns = place, columns

    def __call__(self) -> Example | None:
        prompt, answer = (self.text(self.column(*each)) for each in _lookups(self.columns))
        if CONTEXT in self.cells and self.column(*_lookups(self.columns)[0]) == "instruction":
            prompt = f"{prompt}\n\n{self.text(CONTEXT)}".strip()
        if not prompt and not answer:
            return None
        if not prompt or not answer:
            missing = "answer" if prompt else "question"
            raise SuiteError(f"has no {missing}", remedy="Fill it in, or remove the row.", place=self.place)
        return Example((Message("user", prompt), Message("assistant", answer)), self.place.line or 0)

    def column(self, given: str | None, usual: Sequence[str], option: str) -> str:
        return _column(list(self.cells), given, usual, option, self.place)

    def text(self, column: str) -> str:
        value = as_written(self.cells[column])
        if value is not None and not isinstance(value, str):
            raise SuiteError(
                f"{column}: expected text, found {shown(value)}", remedy="Put it in quotes.", place=self.place
            )
        return (value or "").strip()


def _lookups(columns: Columns) -> tuple[tuple[str | None, Sequence[str], str], ...]:
    return (columns.prompt, PROMPTS, "--prompt-column"), (columns.answer, ANSWERS, "--answer-column")


def _column(names: Sequence[str], given: str | None, usual: Sequence[str], option: str, place: Place) -> str:
    """Return the column that the user named, or the first column with a usual name."""
    candidates = [given.strip().lower()] if given is not None else usual
    found = next((name for name in candidates if name in names), None)
    if found:
        return found
    what = f"no column {shown(given)}" if given is not None else f"no column {', '.join(usual[:-1])} or {usual[-1]}"
    remedy = f"The columns are: {', '.join(names)}. Name one with {option}."
    raise SuiteError(f"there is {what}", remedy=remedy, place=place)


def _table(text: str, file: str, columns: Columns) -> Iterator[_Row]:
    delimiter = _delimiter(text, file)
    lines = csv_lines(file, text, delimiter)
    first, header = next(lines, (1, []))
    names = [name.strip().lower() for name in header]
    if not names:
        raise SuiteError("the file is empty", remedy="Name the columns in the first line.", place=Place(file))
    if twice := [name for name in names if name and names.count(name) > 1]:
        remedy = "Remove or rename one of them."
        raise SuiteError(f"the column {shown(twice[0])} is given twice", remedy=remedy, place=Place(file, first))
    for each in _lookups(columns):
        _column(names, *each, Place(file, first))
    for line, cells in lines:
        if len(cells) != len(names):
            remedy = "Quote cells that hold commas, semicolons or line breaks."
            message = f"has {len(cells)} cells under {len(names)} columns"
            raise SuiteError(message, remedy=remedy, place=Place(file, line))
        yield _Row(dict(zip(names, cells, strict=True)), Place(file, line), columns)


def _delimiter(text: str, file: str) -> str:
    """Return the delimiter that splits the header into the most cells."""
    return max(DELIMITERS, key=lambda mark: len(next(csv_lines(file, text, mark), (1, []))[1]))


def _lines(text: str, file: str, columns: Columns) -> Iterator[_Row | _Conversation]:
    for document in json_rows(file, text):
        if not isinstance(document.value, dict):
            remedy = 'Write {"prompt": ..., "completion": ...} or {"messages": [...]}.'
            raise document.wrong("is not a row with named values", remedy)
        if "messages" in document.value:
            yield _Conversation(document)
        else:
            yield _Row(document.value, document.place(), columns)


@dataclass(frozen=True)
class _Conversation:
    """A row with messages; calling it returns the training example."""

    document: Document

    def __call__(self) -> Example:
        form = fit(ExampleForm, self.document, {"messages": self.document.value["messages"]})
        messages = tuple(Message(m.role, m.content.strip()) for m in form.messages)
        return Example(messages, self.document.place().line or 0)


# --- checks ------------------------------------------------------------------------------------------------------


def _checked(examples: Sequence[Example], file: str, *, empty: int) -> Rows:
    """Leave out repeated rows; raise an error for rows that are too long and for questions with two answers."""
    first: dict[tuple[str, ...], Example] = {}
    repeated: list[str] = []
    problems: list[HarnessError] = []
    for example in examples:
        problems.extend(_too_long(example, file))
        earlier = first.setdefault(_question(example), example)
        if earlier is example:
            continue
        if words(earlier.messages[-1].content) == words(example.messages[-1].content):
            repeated.append(f"line {example.line} (as line {earlier.line})")
        else:
            problems.append(_conflict(earlier, example, file))
    raise_all(problems)
    if not first:
        raise SuiteError(
            "the file holds no rows", remedy="Add rows, each with one question and its answer.", place=Place(file)
        )
    left_out = [f"Left out, because they are empty: {empty} rows."] if empty else []
    if repeated:
        more = f" and {len(repeated) - 3} more" if len(repeated) > 3 else ""
        left_out.append(f"Left out, because they repeat another row: {', '.join(repeated[:3])}{more}.")
    return Rows(tuple(first.values()), tuple(left_out))


def _question(example: Example) -> tuple[str, ...]:
    """Return all messages before the answer, in lower case and without punctuation."""
    return tuple(f"{m.role}: {' '.join(words(m.content))}" for m in example.messages[:-1])


def _conflict(earlier: Example, example: Example, file: str) -> SuiteError:
    message = f"repeats the question in line {earlier.line} with another answer"
    remedy = "A model cannot learn both answers. Remove one row, or change a question by more than punctuation."
    return SuiteError(message, remedy=remedy, place=Place(file, example.line))


def _too_long(example: Example, file: str) -> Iterator[SuiteError]:
    length = sum(len(message.content) for message in example.messages)
    if length > TOO_LONG:
        message = f"has {length} characters; a small GPU can train on at most {TOO_LONG}"
        yield SuiteError(message, remedy="Shorten it, or split it into several rows.", place=Place(file, example.line))
