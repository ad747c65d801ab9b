"""The files that a suite names: found inside its folder only, and read as rows of cases or training examples."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from harness.errors import Place, SuiteError
from harness.suites.forms import FILE, TYPES
from harness.yamltext import Document, nearest, of_value, parse_yaml, read_text, shown

OWN_COLUMNS = frozenset({"id", "role", "split", "reference", "group"})
EXPECTED = re.compile(r"__expected\d*")
# Of promptfoo's; to read `javascript: ...` as text to be equalled would turn a check into a different one.
UNSUPPORTED = frozenset({"javascript", "fn", "eval", "python", "file", "grade", "llm-rubric", "similar", "factuality",
                         "model-graded-closedqa", "webhook", "is-sql", "is-xml", "is-html"})  # fmt: skip

Read = Callable[[str], str]
"""A file's name, relative to the suite, to its text; FileNotFoundError, or SuiteError when it may not be read."""


# --- reading -----------------------------------------------------------------------------------------------------


def reader(folder: Path) -> Read:
    """Reads files of this folder, and of no other, whatever they are called and wherever links lead."""

    def read(name: str) -> str:
        inside = Path(name)
        if inside.is_absolute() or ".." in inside.parts or "\x00" in name:
            raise _outside(name)
        path = folder / inside
        if not path.resolve().is_relative_to(folder.resolve()):
            raise _outside(name)
        return read_text(path, name, SuiteError)

    return read


def _outside(name: str) -> SuiteError:
    return SuiteError(
        f"{FILE}{name} leads out of the suite's folder", remedy="Put the file beside the suite, and name it."
    )


def referred(reference: str, read: Read, asked: Document, location: tuple[str | int, ...]) -> str:
    """The text of a file named in a document; errors point to where it is named."""
    name = reference.removeprefix(FILE)
    try:
        return read(name)
    except FileNotFoundError:
        raise asked.wrong(f"there is no file {shown(name)}", "It is looked for beside the suite.", location) from None
    except SuiteError as problem:
        if problem.place is not None:
            raise
        raise asked.wrong(problem.message, problem.remedy, location) from None


# --- rows --------------------------------------------------------------------------------------------------------


def case_rows(name: str, text: str) -> Iterator[Document]:
    """Every case of a CSV, JSONL or YAML file, as a document that is fitted to a form later."""
    suffix = Path(name).suffix.lower()
    if suffix == ".csv":
        return csv_rows(name, text)
    if suffix in (".jsonl", ".ndjson"):
        return json_rows(name, text)
    if suffix in (".yaml", ".yml", ".json"):
        return yaml_rows(name, text)
    raise SuiteError("cases are read from .csv, .jsonl and .yaml files", place=Place(name))


def yaml_rows(name: str, text: str) -> Iterator[Document]:
    document = parse_yaml(text, name, SuiteError)
    if not isinstance(document.root.value, list):
        raise document.wrong("expected a list of cases", "Begin every case with '- '.")
    yield from (document.part((i,)) for i in range(len(document.root.value)))


def json_rows(name: str, text: str) -> Iterator[Document]:
    """One document per line that is not blank; only line feeds end a line, as in every JSONL reader."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = Place(name, number)
            yield of_value(_json(line, place), place, SuiteError)


def _json(line: str, place: Place) -> Any:
    try:
        return _loads(line)
    except json.JSONDecodeError as problem:
        where = Place(place.file, place.line, problem.colno)
        remedy = 'Every line is one JSON object: {"messages": [...]} or the like, in double quotes.'
        raise SuiteError(f"not valid JSON: {problem.msg}", remedy=remedy, place=where) from None
    except RecursionError:
        raise SuiteError("is nested too deep", remedy="Unbalanced brackets, perhaps?", place=place) from None
    except ValueError as problem:
        raise SuiteError(f"not valid JSON: {problem}", place=place) from None


def _loads(line: str) -> Any:
    value = json.loads(line, object_pairs_hook=_once, parse_constant=_no_constant)
    if "\\ud" in line.lower():  # half of a surrogate pair is no character, and no tokenizer takes it
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} is given twice")
        found[key] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


# --- CSV, in promptfoo's manner ----------------------------------------------------------------------------------


def csv_rows(name: str, text: str) -> Iterator[Document]:
    """Columns are variables, save `__expected`, `__description` and the harness's own `id`, `role` and so on."""
    lines = _csv_lines(name, text)
    _, header = next(lines, (1, []))
    header = [column.strip() for column in header]
    _check_header(name, header)
    for line, cells in lines:
        place = Place(name, line)
        if len(cells) != len(header):
            remedy = "Quote cells that hold commas."
            raise SuiteError(f"has {len(cells)} cells under {len(header)} columns", remedy=remedy, place=place)
        yield of_value(_csv_case(dict(zip(header, cells, strict=True)), place), place, SuiteError)


def _csv_lines(name: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not blank, with the line it begins in."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    for _ in count():
        line = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as problem:
            raise SuiteError(f"not valid CSV: {problem}", remedy="Check the quotes.", place=Place(name, line)) from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _check_header(name: str, header: list[str]) -> None:
    place = Place(name, 1)
    if not header:
        raise SuiteError("has no header", remedy="The first line names the columns.", place=place)
    seen: set[str] = set()
    for column in header:
        if column in seen:
            raise SuiteError(f"the column {shown(column)} is given twice", remedy="Remove one of them.", place=place)
        seen.add(column)
        if column.startswith("__") and column != "__description" and not EXPECTED.fullmatch(column):
            known = nearest(column, ["__expected", "__description"])
            raise SuiteError(f"unknown column {shown(column)}", remedy=known, place=place)


def _csv_case(row: dict[str, str], place: Place) -> dict[str, Any]:
    variables = {name: cell for name, cell in row.items() if name not in OWN_COLUMNS and not name.startswith("__")}
    expected = [cell.strip() for name, cell in row.items() if EXPECTED.fullmatch(name) and cell.strip()]
    case: dict[str, Any] = {"vars": variables, "assert": [_expected(cell, place) for cell in expected]}
    case |= {column: row[column] for column in OWN_COLUMNS if row.get(column)}
    if row.get("__description"):
        case["description"] = row["__description"]
    return case


def _expected(cell: str, place: Place) -> dict[str, Any]:
    """`icontains: Paris` is an assertion of that type; anything else must be equalled."""
    kind, colon, value = (part.strip() for part in cell.partition(":"))
    if not colon and kind.removeprefix("not-") == "is-json":
        return {"type": kind}
    if colon and kind in TYPES:
        wants_list = kind.removeprefix("not-").endswith(("-any", "-all"))
        words: Any = [word.strip() for word in value.split(",")] if wants_list else value
        return {"type": kind, "value": words}
    _refuse_misspelt(kind if colon else "", place)
    return {"type": "equals", "value": cell}


def _refuse_misspelt(kind: str, place: Place) -> None:
    if kind in UNSUPPORTED:
        raise SuiteError(f"the assertion type {shown(kind)} is not supported", remedy=nearest("", TYPES), place=place)
    advice = nearest(kind, TYPES)
    if re.fullmatch(r"[a-z]+(-[a-z]+)*", kind) and advice.startswith("Did"):
        remedy = f"{advice} To compare with this text as it is, write equals: before it."
        raise SuiteError(f"unknown assertion type {shown(kind)}", remedy=remedy, place=place)
