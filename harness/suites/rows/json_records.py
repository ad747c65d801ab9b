"""Read rows from JSON: one object per line, a list of objects, a list inside an object, or a list per column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.core.errors import Place, SuiteError
from harness.core.yaml import MAX_DEPTH, shown
from harness.suites.case_files import DECODER, check_number, json_mistake, parse_json, too_deep
from harness.suites.rows.columns import belongs_to_questions, layout_of, lists_in
from harness.suites.rows.records import USUAL, Mistake, Record, Records, RowError, has_content, named

MOST_PARTS = 5_000_000
"""Largest number of lists and objects. An empty one takes 3 characters in a file, and 60 bytes in memory."""
QUESTION_MARKS = ("?", "？")
_BLANK = " \t\r\n"


def is_json(text: str) -> bool:
    """Whether a text looks like JSON: it begins with a bracket."""
    return text.lstrip()[:1] in ("{", "[")


def json_records(text: str, file: str) -> Records:
    """Return the rows of a JSON text. Only a line feed ends a line, as in the JSONL format.

    Raises:
        SuiteError: the text is one JSON value and not valid, or it has too many rows, lists or objects.
    """
    if text.count("[") + text.count("{") > MOST_PARTS:
        what, remedy = f"holds more than {MOST_PARTS:,} lists and objects", "Take a sample of its rows."
        raise SuiteError(what, remedy=remedy, place=Place(file))
    return _by_line(text, file) if _has_rows_on_lines(text) else _by_value(text, file)


def _has_rows_on_lines(text: str) -> bool:
    """Whether every line is a value of its own: the first one is whole, or at least meant to be."""
    first, _, rest = text.lstrip().partition("\n")
    first = first.strip()
    try:
        DECODER.decode(first)
    except (ValueError, RecursionError):
        return first.startswith("{") and (first.endswith("}") or not rest.strip())
    return first.startswith("{") or rest.lstrip().startswith("[")


def _by_line(text: str, file: str) -> Records:
    records = Records(file)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = Place(file, number)
        check_number(len(records.rows) + len(records.mistakes) + 1, place)
        try:
            records.rows.append(Record(number, parse_json(line, place)))
        except SuiteError as problem:
            column = problem.place.column if problem.place else None
            records.mistakes.append(Mistake(number, problem.message, problem.remedy, column))
    return _unwrapped(records) if len(records.rows) == 1 and not records.mistakes else records


def _by_value(text: str, file: str) -> Records:
    """Read the elements of a list, or values that follow each other, each of which may take several lines."""
    records = Records(file)
    line, at = 1, 0
    for begin, value in _values(text, file):
        line, at = line + text.count("\n", at, begin), begin
        check_number(len(records.rows) + 1, Place(file, line))
        records.rows.append(Record(line, value))
    numbers = [record.number for record in records.rows]
    if len(set(numbers)) < len(numbers):
        _number_rows(records, [record.cells for record in records.rows])
    return _unwrapped(records) if len(records.rows) == 1 else records


def _values(text: str, file: str) -> Iterator[tuple[int, Any]]:
    """Yield values with the position at which each begins."""
    at = _skip(text, 0)
    is_list = text[at : at + 1] == "["
    at = _skip(text, at + is_list)
    if is_list and text[at : at + 1] == "]":
        return
    while at < len(text):
        value, end = _value(text, at, file)
        yield at, value
        at = _skip(text, end)
        if is_list:
            if text[at : at + 1] == "]":
                _check_nothing_follows(text, _skip(text, at + 1), file)
                return
            if at < len(text) and text[at] != ",":
                raise _invalid("expected a comma or ] after a row", text, at, file)
            at = _skip(text, at + 1)
    if is_list:
        raise _invalid("the list has no end", text, len(text), file)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _value(text: str, at: int, file: str) -> tuple[Any, int]:
    try:
        value, end = DECODER.raw_decode(text, at)
        if text.count("[", at, end) + text.count("{", at, end) > MAX_DEPTH and too_deep(value):
            raise RecursionError
        if "\\ud" in text[at:end].lower():  # a lone surrogate is not a character
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as problem:
        raise _invalid(problem.msg, text, problem.pos, file) from None
    except RecursionError:
        raise _error("is nested too deeply", "Check for unbalanced brackets.", text, at, file) from None
    except ValueError as problem:
        raise _error(*json_mistake(problem), text, at, file) from None
    return value, end


def _check_nothing_follows(text: str, at: int, file: str) -> None:
    if at < len(text):
        raise _invalid("something follows the list", text, at, file)


def _invalid(what: str, text: str, at: int, file: str) -> SuiteError:
    return _error(f"not valid JSON: {what}", "Check the quotes, commas and brackets here.", text, at, file)


def _error(message: str, remedy: str, text: str, at: int, file: str) -> SuiteError:
    line = text.count("\n", 0, at) + 1
    return SuiteError(message, remedy=remedy, place=Place(file, line, at - text.rfind("\n", 0, at)))


# --- objects that hold rows --------------------------------------------------------------------------------------


def _unwrapped(records: Records) -> Records:
    """Return the rows inside a file's only object; the object itself if it is a row."""
    (outer,) = (record.cells for record in records.rows)
    if isinstance(outer, dict):
        if rows := _squad(outer):
            return _number_rows(records, rows)
        if rows := _by_id(outer):
            return _number_rows(records, rows)
        is_asked = all(name.rstrip().endswith(QUESTION_MARKS) for name in outer)
        if not is_asked and (rows := _columns(outer, records)):
            return _number_rows(records, rows)
        if _is_row(outer):
            return records
        if rows := _answered(outer):
            records.notices.append("The file is one object, whose names are read as questions and values as answers.")
            return _number_rows(records, rows)
        inside = [key for key, value in outer.items() if _is_rows(value)]
        if len(inside) > 1 and all(any(map(_is_row, outer[key])) for key in inside):
            remedy = f"Write the rows to train into a file of their own, such as {shown(inside[0])} as a list."
            raise SuiteError(f"holds rows under {named(inside)}", remedy=remedy, place=Place(records.file))
        others = [key for key in outer if key not in inside and has_content(outer[key])]
        if len(inside) == 1 and not any(isinstance(outer[key], dict | list) for key in others):
            # What belongs to every question, such as a passage or a system message, is put into every row.
            shared = {key: outer[key] for key in others if belongs_to_questions(key)}
            if left := [key for key in others if key not in shared]:
                records.notices.append(f"Left out, because the rows are in {inside[0]}: {named(left)}.")
            rows = outer[inside[0]]
            # The Hub's dataset viewer puts each row under the key `row`.
            rows = [each["row"] if isinstance(each.get("row"), dict) else each for each in rows]
            return _number_rows(records, [{**shared, **each} for each in rows])
    return records


def _number_rows(records: Records, rows: list[Any]) -> Records:
    check_number(len(rows), Place(records.file))
    records.unit, records.rows = "row", [Record(number, cells) for number, cells in enumerate(rows, 1)]
    return records


def _is_row(value: Mapping[str, Any]) -> bool:
    """Whether an object is a row itself: it has a question and an answer, or a conversation."""
    try:
        layout_of(tuple(value), USUAL, lists=lists_in(value))
    except RowError:
        return False
    return True


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _squad(outer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the questions of a file in the form of SQuAD, with what their article and paragraph hold; else none."""
    if not _is_rows(outer.get("data")) or not all(_is_rows(article.get("paragraphs")) for article in outer["data"]):
        return []
    return [
        {**_other_than("paragraphs", article), **_other_than("qas", paragraph), **qa}
        for article in outer["data"]
        for paragraph in article["paragraphs"]
        if _is_rows(paragraph.get("qas"))
        for qa in paragraph["qas"]
    ]


def _answered(outer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an object from questions to answers, or to lists of answers; none if no name is a question."""
    asked = [name for name in outer if name.rstrip().endswith(QUESTION_MARKS)]
    is_read = all(map(_are_texts, outer.values())) and (
        len(asked) == len(outer) or all(isinstance(value, str) for value in outer.values())
    )
    return [{"question": name, "answer": value} for name, value in outer.items()] if asked and is_read else []


def _are_texts(value: Any) -> bool:
    """Whether a value is a text, or a list of texts."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _by_id(outer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an object from ids to rows; none if one of its values is no row."""
    values = list(outer.values())
    return values if values and all(isinstance(value, dict) and _is_row(value) for value in values) else []


def _other_than(key: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


def _columns(outer: Mapping[str, Any], records: Records) -> list[dict[str, Any]]:
    """Return the rows of an object with a list of texts, or a mapping of numbers to texts, per column (pandas).

    Raises:
        SuiteError: the columns have different rows, so that it is not known which question belongs to which answer.
    """
    given = {key: value for key, value in outer.items() if isinstance(value, list | dict)}
    columns = {key: list(value.values()) if isinstance(value, dict) else value for key, value in given.items()}
    rows = {tuple(value) for value in given.values() if isinstance(value, dict)}
    if len(columns) < 2 or any(isinstance(each, dict | list) for value in columns.values() for each in value):
        return []
    if len(rows) > 1 or len({len(value) for value in columns.values()}) > 1:
        _check_even(columns, records)
        return []
    if len(columns) < len(outer) or not all(columns.values()):
        return []
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _check_even(columns: Mapping[str, list[Any]], records: Records) -> None:
    """Refuse a file with a list per column whose columns have different rows."""
    try:
        layout = layout_of(tuple(columns), USUAL, lists=tuple(columns))
    except RowError:
        return
    if layout.conversation is None and not layout.has_wordings and columns[layout.prompt] and columns[layout.answer]:
        counts = ", ".join(f"{shown(name)} has {len(values):,}" for name, values in list(columns.items())[:5])
        remedy = 'Write one object per row, with its question and its answer. In pandas: to_json(orient="records").'
        what = f"its columns do not have the same rows: {counts}"
        raise SuiteError(what, remedy=remedy, place=Place(records.file))
