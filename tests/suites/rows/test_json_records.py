"""Tests that rows are found in JSON: in lines, in lists, in an object, and that mistakes have a place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.core.errors import SuiteError
from harness.suites.rows import read_rows
from harness.suites.rows.json_records import is_json, json_records


def cells(text: str) -> list[object]:
    return [record.cells for record in json_records(text, "rows.json").rows]


ROW = {"question": "a", "answer": "b"}
ONE = json.dumps(ROW)


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}\n{ONE}",
        f"\n{ONE}\r\n\r\n{ONE}\r\n",
        f"[{ONE}, {ONE}]",
        f"[\n  {ONE},\n  {ONE}\n]\n",
        json.dumps([ROW, ROW], indent=2),
        f"{json.dumps(ROW, indent=2)}\n{json.dumps(ROW, indent=2)}",
        f'{{"version": 1, "faq": [{ONE}, {ONE}]}}',
        json.dumps({"faq": [ROW, ROW]}, indent=2),
        '{"question": ["a", "a"], "answer": ["b", "b"]}',
        '{"question": {"0": "a", "1": "a"}, "answer": {"0": "b", "1": "b"}}',
    ],
)
def test_rows_of_objects(text: str) -> None:
    """Rows are found in lines, in lists, in objects that follow each other, and inside an object."""
    assert is_json(text)
    assert cells(text) == [ROW, ROW]


def test_an_object_that_is_a_row_is_not_opened() -> None:
    """The only row of a file is a row, even if it holds lists of objects itself."""
    row = {"prompt": "a", "completion": "b", "tools": [{"name": "x"}]}
    talk = {"conversations": [{"from": "human", "value": "a"}]}
    assert cells(json.dumps(row)) == [row]
    assert cells(json.dumps(talk, indent=1)) == [talk]


def test_rows_are_numbered_by_line_if_each_has_its_own() -> None:
    """Rows of an indented list have the number of their line; rows in one line are counted."""
    indented = json_records(f"[\n{ONE},\n\n{ONE}\n]", "rows.json")
    assert (indented.unit, [row.number for row in indented.rows]) == ("line", [2, 4])
    packed = json_records(f"[{ONE}, {ONE}]", "rows.json")
    assert (packed.unit, [row.number for row in packed.rows]) == ("row", [1, 2])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[\n{}\n{}]", "rows.json:3:1: not valid JSON: expected a comma or ]"),
        ("[{}", "rows.json:1:4: not valid JSON: the list has no end"),
        ("[{}] x", "rows.json:1:6: not valid JSON: something follows the list"),
        ("[{},\n {'a': 1}]", "rows.json:2:3: not valid JSON: Expecting property name"),
        ('{\n "a": 1\n "b"}', "rows.json:3:2: not valid JSON: Expecting ',' delimiter"),
        ("[" + "[" * 100_000, "rows.json:1:2: is nested too deeply"),
        ("[" + "[" * 40 + "]" * 41, "rows.json:1:2: is nested too deeply"),
        ('[{"a": "\\ud800"}]', "rows.json:1:2: not valid JSON: a lone surrogate"),
        ("[" + "9" * 5000 + "]", "rows.json:1:2: not valid JSON: Exceeds the limit"),
        ('[{"a": 1, "a": 2}]', 'rows.json:1:2: not valid JSON: the key "a" is given twice'),
    ],
)
def test_mistakes_in_a_list(text: str, expected: str) -> None:
    """A mistake in a JSON list is an error with line, column and remedy."""
    with pytest.raises(SuiteError) as caught:
        json_records(text, "rows.json")
    assert str(caught.value).startswith(expected)
    assert caught.value.remedy


def test_all_lines_that_are_no_json_are_found() -> None:
    """In a file with an object per line, every line that is not valid JSON is listed, with its column."""
    found = json_records(f"{ONE}\n{{'a': 1}}\n{ONE}\n{{\"a\"\n", "rows.jsonl")
    assert [(m.number, m.column) for m in found.mistakes] == [(2, 2), (4, 5)]
    assert len(found.rows) == 2


@pytest.mark.parametrize(
    "outer",
    [
        {"question": ["a", "b"], "answer": ["c"]},
        {"question": ["a"], "answer": ["c", "d"], "name": "faq"},
        {"question": {"0": "a", "1": "b"}, "answer": {"1": "c", "2": "d"}},
        {"question": {"0": "a", "1": "b"}, "answer": {"1": "d", "0": "c"}},
    ],
)
def test_columns_with_different_rows_are_refused(outer: dict[str, object]) -> None:
    """A list or mapping per column is refused if the columns have different rows, since answers would be mixed up."""
    with pytest.raises(SuiteError, match="its columns do not have the same rows") as caught:
        json_records(json.dumps(outer), "rows.json")
    assert "Write one object per row" in caught.value.remedy


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"1": {"question": "a", "answer": "x"}, "2": {"question": "b", "answer": "y"}}, [("a", "x"), ("b", "y")]),
        ({"Hi?": ["Yes", "Sure"], "Bye?": "No"}, [("Hi?", "Yes"), ("Bye?", "No")]),
        ({"Hi?": ["Yes", "Sure"], "Bye?": ["No", "Never"]}, [("Hi?", "Yes"), ("Bye?", "No")]),
        ({"question": {"0": "a"}, "answer": {"0": "x"}}, [("a", "x")]),
        (
            {"question": "a", "context": [{"title": "T", "text": "b"}, {"text": "c"}], "answer": "x"},
            [("a\n\nT\nb\n\nc", "x")],
        ),
    ],
)
def test_mappings_of_rows_and_of_several_answers(value: Any, expected: list[tuple[str, str]]) -> None:
    """A mapping from ids to rows, or from questions to several answers, is read; a context joins all its passages."""
    found = read_rows(json.dumps(value).encode(), "rows.json")
    assert [tuple(message.content for message in row.messages) for row in found.examples] == expected
