"""Read files in a suite's folder: cases from CSV, JSONL and YAML files, and the lines of JSONL files."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from harness.core.errors import Place, SuiteError
from harness.core.yaml import MAX_DEPTH, Document, nearest, of_value, parse_yaml, read_bytes, read_text, shown
from harness.core.yaml.document import WrittenFloat
from harness.scoring.registry import WRITABLE, find, is_unsupported
from harness.scoring.values import FILE
from harness.suites.promptfoo.references import Load, dereferenced, no_files

OWN_COLUMNS = frozenset({"id", "role", "split", "reference", "group"})
EXPECTED = re.compile(r"__expected\d*")
NOT_VARIABLES = frozenset({"__description", "__metric", "__threshold", "__prefix", "__suffix", "__providerOutput"})
METADATA = "__metadata:"
CONFIG = re.compile(r"__config:__expected(?P<number>[1-9]\d{0,2})?:threshold")
"""A column with the threshold of an assertion: the first one, or the one with this number."""
OLD_NAMES = {"fn": "javascript", "eval": "javascript", "grade": "llm-rubric"}
JAVASCRIPT = re.compile(r"\.[cm]?[jt]s(:[^/.]*)?$")
THRESHOLDS = {"similar": 0.8, "answer-relevance": 0.75}
"""Thresholds that promptfoo takes for an assertion in a cell, where they differ from those elsewhere."""
SHORTHAND = re.compile(
    r"(?P<type>[a-z0-9-]+(:[a-z-]+(?=\())?)(\((?P<threshold>\d+(\.\d+)?)\))?(?P<colon>:)?(?P<value>.*)", re.DOTALL
)
SURROGATES = re.compile(
    r"(?P<before>(?<!\\)(\\\\)*)\\u(?P<high>d[89ab][0-9a-f]{2})\\u(?P<low>d[c-f][0-9a-f]{2})", re.IGNORECASE
)
MAX_ROWS = 200_000
"""Largest number of rows of a file."""

Read = Callable[[str], str]
"""Returns the text of a file, given its path relative to the suite's folder.

Raises FileNotFoundError if the file is missing, and SuiteError if it is outside the folder or cannot be read.
"""
ReadBytes = Callable[[str], bytes]
"""Like `Read`, for files that may be no text."""
Content = TypeVar("Content", str, bytes)


# --- reading -----------------------------------------------------------------------------------------------------


def reader(folder: Path, root: Path | None = None) -> Read:
    """Return a function that reads files in this folder, and refuses paths and links that lead out of it.

    With `root`, paths may lead to any file in that folder instead.
    """
    return lambda name: read_text(inside(folder, name, root), name, SuiteError)


def bytes_reader(folder: Path, root: Path | None = None) -> ReadBytes:
    """Return a function like that of `reader`, for files that may be no text."""
    return lambda name: read_bytes(inside(folder, name, root), name, SuiteError)


def inside(folder: Path, name: str, root: Path | None = None) -> Path:
    """Return the path of a file in a suite's folder.

    Raises:
        SuiteError: the name leads out of the folder, or out of `root` if there is one, or the file is a link that does.
    """
    relative = Path(name)
    if relative.is_absolute() or "\x00" in name or (root is None and ".." in relative.parts):
        raise outside(name, root)
    path = folder / relative
    try:
        found = path.resolve()
        if found.is_symlink():  # a link that leads to itself; Python 3.13 and later raise no error
            raise OSError
    except (OSError, RuntimeError):
        raise SuiteError("is a link that leads nowhere", remedy="Replace it by a file.", place=Place(name)) from None
    if not found.is_relative_to((root or folder).resolve()):
        raise outside(name, root)
    return path


def outside(name: str, root: Path | None) -> SuiteError:
    """Return the error for a file that is not in the suite's folder, or not in `root`."""
    where = "the suite's folder" if root is None else f"the folder given as --root, {root}"
    remedy = "Move the file into it, or name a folder that holds both with --root DIR."
    return SuiteError(f"{FILE}{name} leads out of {where}", remedy=remedy)


def read_referenced(
    reference: str, read: Callable[[str], Content], document: Document, location: tuple[str | int, ...]
) -> Content:
    """Return the content of a file that a document refers to; errors give the place of the reference."""
    name = reference.removeprefix(FILE)
    try:
        return read(name)
    except FileNotFoundError:
        remedy = "Paths are relative to the suite's folder."
        raise document.wrong(f"there is no file {shown(name)}", remedy, location) from None
    except SuiteError as problem:
        if problem.place is not None:
            raise
        raise document.wrong(problem.message, problem.remedy, location) from None


# --- rows --------------------------------------------------------------------------------------------------------


def case_rows(name: str, text: str, load: Load = no_files) -> Iterator[Document]:
    """Yield every case of a CSV, JSONL, YAML or JSON file as a document that is not validated yet.

    `load` reads the files that a `$ref` names.
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".csv":
        return csv_rows(name, text)
    if suffix in (".jsonl", ".ndjson"):
        return json_rows(name, text)
    if suffix in (".yaml", ".yml", ".json"):
        return yaml_rows(name, with_whole_characters(text) if suffix == ".json" else text, load)
    raise SuiteError("cases are read only from .csv, .jsonl, .yaml and .json files", place=Place(name))


def with_whole_characters(text: str) -> str:
    """Replace pairs of escaped surrogates in JSON, such as \\ud83d\\ude00, which YAML does not have, by one escape."""

    def whole(found: re.Match[str]) -> str:
        high, low = int(found["high"], 16), int(found["low"], 16)
        return f"{found['before']}\\U{0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00:08x}"

    return SURROGATES.sub(whole, text) if "\\ud" in text.lower() else text


def yaml_rows(name: str, text: str, load: Load = no_files) -> Iterator[Document]:
    document = dereferenced(parse_yaml(text, name, SuiteError), text, load)
    if isinstance(document.root.value, dict):
        yield document
        return
    if not isinstance(document.root.value, list):
        raise document.wrong("expected a list of cases", "Begin every case with '- '.")
    yield from (document.part((i,)) for i in range(len(document.root.value)))


def json_rows(name: str, text: str) -> Iterator[Document]:
    """Yield a document for every line that is not blank. Only a line feed ends a line, as in the JSONL format."""
    found = 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place, found = Place(name, number), found + 1
            check_number(found, place)
            yield of_value(parse_json(line, place), place, SuiteError)


def parse_json(line: str, place: Place) -> Any:
    """Return the value of a line of JSON. Duplicate keys, NaN, lone surrogates and deep nesting are refused."""
    try:
        value = _loads(line)
        # A line with few opening brackets cannot be nested too deeply, so its depth is not computed.
        if line.count("[") + line.count("{") > MAX_DEPTH and too_deep(value):
            raise RecursionError
        return value
    except json.JSONDecodeError as problem:
        where = Place(place.file, place.line, problem.colno)
        remedy = 'Every line must be one JSON object with double quotes, such as {"prompt": "..."}.'
        raise SuiteError(f"not valid JSON: {problem.msg}", remedy=remedy, place=where) from None
    except RecursionError:
        raise SuiteError("is nested too deeply", remedy="Check for unbalanced brackets.", place=place) from None
    except ValueError as problem:
        message, remedy = json_mistake(problem)
        raise SuiteError(message, remedy=remedy, place=place) from None


def json_mistake(problem: ValueError) -> tuple[str, str]:
    """Return message and remedy for a JSON value that Python reads and the harness refuses."""
    if isinstance(problem, UnicodeEncodeError):
        return "not valid JSON: a lone surrogate is not a character", "Remove the escape that begins with \\ud."
    message, _, remedy = str(problem).partition("\n")
    return f"not valid JSON: {message}", remedy or "Shorten the number, or put it into quotes."


def too_deep(value: Any) -> bool:
    """Whether a value is nested deeper than the limit for YAML."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH + 1):
        inside = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in inside if isinstance(inner, dict | list)]
    return bool(level)


def _loads(line: str) -> Any:
    value = DECODER.decode(line)
    if "\\ud" in line.lower():  # an unpaired surrogate is not a character, and no tokenizer accepts it
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} is given twice\nRemove or rename one of them.")
        found[key] = value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number\nWrite null, or a number.")


def _as_spelt(number: str) -> WrittenFloat:
    found = WrittenFloat(number)
    found.written = number
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_float=_as_spelt)


# --- CSV, as in promptfoo ----------------------------------------------------------------------------------------


def check_number(rows: int, place: Place) -> None:
    if rows > MAX_ROWS:
        raise SuiteError(f"the file has more than {MAX_ROWS:,} rows", remedy="Take a sample of them.", place=place)


def csv_rows(name: str, text: str) -> Iterator[Document]:
    """Yield the cases of a CSV file.

    Columns are variables, except promptfoo's special columns (`__expected`, `__description` and so on). `id`, `role`,
    `split`, `reference` and `group` are also fields of the case.
    """
    lines = csv_lines(name, text)
    _, header = next(lines, (1, []))
    header = [column.strip() for column in header]
    _check_header(name, header)
    for number, (line, cells) in enumerate(lines, 1):
        place = Place(name, line)
        check_number(number, place)
        if len(cells) != len(header):
            remedy = "Quote cells that hold commas."
            raise SuiteError(f"has {len(cells)} cells under {len(header)} columns", remedy=remedy, place=place)
        yield of_value(_csv_case(dict(zip(header, cells, strict=True)), place), place, SuiteError)


def csv_lines(name: str, text: str, delimiter: str = ",", **dialect: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield every row that is not blank, with the number of its first line. `dialect`: options of csv.reader."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **{"strict": True, **dialect})
    for _ in count():
        line = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as problem:
            remedy = f"Check the quotes. A text has at most {csv.field_size_limit():,} characters."
            raise SuiteError(f"not valid CSV: {problem}", remedy=remedy, place=Place(name, line)) from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _check_header(name: str, header: list[str]) -> None:
    place = Place(name, 1)
    if len(header) == 1 and ("__expected" in re.split(r"[;\t|]", header[0])[1:]):
        remedy = "Save it as CSV with commas, as promptfoo reads it."
        raise SuiteError("has other characters than commas between its columns", remedy=remedy, place=place)
    if not header:
        raise SuiteError("has no header", remedy="Name the columns in the first line.", place=place)
    seen: set[str] = set()
    for column in header:
        if column in seen:
            raise SuiteError(f"the column {shown(column)} is given twice", remedy="Remove one of them.", place=place)
        seen.add(column)
        if remedy := _misnamed(column):
            raise SuiteError(f"unknown column {shown(column)}", remedy=remedy, place=place)


def _misnamed(column: str) -> str:
    """Return what to do about a column that promptfoo's special columns resemble; an empty text for any other."""
    if column in NOT_VARIABLES or column.startswith(METADATA) or CONFIG.fullmatch(column) or EXPECTED.fullmatch(column):
        return ""
    name = column.strip("_").lower()
    known = {own.strip("_").lower(): own for own in NOT_VARIABLES}
    meant = f"__{name}" if EXPECTED.fullmatch(f"__{name}") else known.get(name)
    if not column.startswith("__"):
        return f'Did you mean "{meant}"?' if column.startswith("_") and meant else ""
    if meant is None and (close := difflib.get_close_matches(name[:60], ["expected", *known], n=1, cutoff=0.8)):
        meant = known.get(close[0], "__expected")
    if meant is not None:
        return f'Did you mean "{meant}"?'
    if name.startswith(("metadata", "config")):
        return f'Write "{METADATA}NAME".' if name.startswith("metadata") else 'Write "__config:__expected:threshold".'
    return "Remove this column or, if it is a variable, rename it: names with two underscores are promptfoo's own."


def _csv_case(row: dict[str, str], place: Place) -> dict[str, Any]:
    variables = {name: cell for name, cell in row.items() if not name.startswith("__")}
    expected = [cell.strip() for name, cell in row.items() if EXPECTED.fullmatch(name) and cell.strip()]
    metric = {"metric": row["__metric"]} if row.get("__metric") else {}
    assertions = [{**_expected(cell, place), **metric} for cell in expected]
    for index, threshold in _thresholds(row, place):
        if index < len(assertions):
            assertions[index]["threshold"] = threshold
    case: dict[str, Any] = {"vars": variables, "assert": assertions}
    case |= {column: row[column] for column in OWN_COLUMNS if row.get(column)}
    options = {name: row[f"__{name}"] for name in ("prefix", "suffix") if row.get(f"__{name}")}
    metadata = {name: cell for name, cell in row.items() if name.startswith(METADATA) and cell}
    given = {
        "description": row.get("__description"),
        "providerOutput": row.get("__providerOutput"),
        "threshold": _threshold(row.get("__threshold", ""), place),
        "options": options,
        "metadata": metadata,
    }
    return case | {name: value for name, value in given.items() if value not in (None, "", {})}


def _thresholds(row: dict[str, str], place: Place) -> Iterator[tuple[int, float]]:
    """Yield the index of an assertion and its threshold, from columns such as `__config:__expected2:threshold`."""
    for name, cell in row.items():
        found, threshold = CONFIG.fullmatch(name), None
        if found and (threshold := _threshold(cell, place)) is not None:
            yield int(found["number"] or 1) - 1, threshold


def _threshold(cell: str, place: Place) -> float | None:
    try:
        return float(cell) if cell.strip() else None
    except ValueError:
        raise SuiteError(f"__threshold: expected a number, found {shown(cell)}", place=place) from None


def _expected(cell: str, place: Place) -> dict[str, Any]:
    """Parse the assertion in a CSV cell, such as `icontains: Paris` or `rouge-n(0.6): Paris`.

    Text that names no assertion type becomes an `equals` assertion.
    """
    if cell.startswith(FILE):
        is_python = cell.endswith(".py") or ".py:" in cell
        kind = "python" if is_python else "javascript" if JAVASCRIPT.search(cell) else "equals"
        return {"type": kind, "value": cell}
    parts = SHORTHAND.fullmatch(cell)
    if parts is None:
        return {"type": "equals", "value": cell}
    kind = OLD_NAMES.get(parts["type"], parts["type"]) if parts["colon"] else parts["type"]
    known = find(kind)
    alone = is_unsupported(kind) or kind == "answer-relevance" or (known is not None and known.can_stand_alone)
    if not parts["colon"] and (parts["value"] or not (alone or parts["threshold"])):
        return {"type": "equals", "value": cell}
    if known or is_unsupported(kind):
        given = parts["threshold"] or THRESHOLDS.get(kind.removeprefix("not-"))
        threshold = {"threshold": float(given)} if given else {}
        # A missing value is not always a mistake: some types use the case's reference instead.
        value = {"value": parts["value"].strip()} if parts["value"].strip() else {}
        return {"type": kind, **value, **threshold}
    _refuse_misspelt(kind, place)
    return {"type": "equals", "value": cell}


def _refuse_misspelt(kind: str, place: Place) -> None:
    advice = nearest(kind, WRITABLE)
    if re.fullmatch(r"[a-z]+(-[a-z]+)*", kind) and advice.startswith("Did"):
        remedy = f"{advice} To compare with exactly this text, write equals: before it."
        raise SuiteError(f"unknown assertion type {shown(kind)}", remedy=remedy, place=place)
