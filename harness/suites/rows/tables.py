"""Read rows from tables: CSV and TSV of spreadsheets, forms and pandas; exports of Anki and Quizlet without header."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from html import unescape
from itertools import islice
from typing import Any

from harness.core.errors import Place, SuiteError
from harness.core.wording import plural
from harness.core.yaml import shown
from harness.suites.case_files import check_number, csv_lines
from harness.suites.rows.columns import is_header, layout_of
from harness.suites.rows.records import USUAL, Columns, Mistake, Record, Records, RowError

DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas"}
"""Delimiters that are recognised; if several are possible, the first, because sentences hold commas. Spreadsheets write
semicolons where the comma is the decimal mark."""
SAMPLE_ROWS, SAMPLE = 20, 65536
"""Rows and characters by which the delimiter is chosen."""
# From Python 3.13 on, the csv module refuses quotation marks and line breaks as delimiters.
_SEP = re.compile(r'"?sep=([^"\r\n])"?[ \t]*(?:\r\n|\r|\n|$)', re.IGNORECASE)
_DIRECTIVE = re.compile(r"#([a-z ]+):([^\r\n]*)(?:\r\n|\r|\n|$)", re.IGNORECASE)
_ANKI_MARKS = {"tab": "\t", "comma": ",", "semicolon": ";", "space": " ", "pipe": "|", "colon": ":"}
_ANKI_COLUMNS = ("tags", "deck", "notetype", "guid")
_CLOZE = re.compile(r"\{\{c\d+::")
_SOUND = re.compile(r"\[sound:[^\[\]\n]{0,300}\]")
_TAG = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]*)\b[^<>]*>")
_BREAKS = frozenset(
    {"br", "div", "p", "li", "tr", "ul", "ol", "table", "h1", "h2", "h3", "h4", "hr", "pre", "dt", "dd"}
)
_MEDIA = re.compile(r"<(img|svg|video|audio|object|embed|iframe)\b", re.IGNORECASE)
_UNSEEN = (("<!--", "-->"), ("<style", "</style>"), ("<script", "</script>"))
_RAISED = {"sup": "^", "sub": "_"}
_RAISED_DIGITS = re.compile(r"([\^_])\(([0-9+-]+)\)")
_DIGITS = {"^": str.maketrans("0123456789+-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"), "_": str.maketrans("0123456789+-", "₀₁₂₃₄₅₆₇₈₉₊₋")}
_MOST_DIRECTIVES = 20
LONGEST_LINE = 2**20


@dataclass
class _Head:
    """What the lines before the rows say: the delimiter, and for Anki the columns and whether cells are HTML."""

    length: int = 0
    lines: int = 0
    delimiter: str | None = None
    names: list[str] | None = None
    special: dict[int, str] = field(default_factory=dict)
    is_html: bool = False
    is_anki: bool = False


def table_records(text: str, file: str, columns: Columns) -> Records:
    """Return the rows of a table.

    Raises:
        SuiteError: the table has a column twice, or none for questions or answers, is not valid CSV, or holds a NUL
            character.
    """
    _check_text(text, file)
    head = _head(text)
    body = text[head.length :]
    delimiter = head.delimiter or _delimiter(body, file, columns)
    lines = _lines(body, file, delimiter, head)
    if not lines:
        return Records(file, columns=columns)
    (line, cells), *rest = lines
    mark = f"{DELIMITERS.get(delimiter, shown(delimiter))} between the columns" if len(cells) > 1 else "one column"
    records = Records(file, columns=columns, read_as=f"the first line, read as a table with {mark}")
    if head.names is not None:
        return _without_header(records, head, lines, head.names)
    headers = [line] if is_header(cells, columns) else []
    headers += [number for number, each in rest[:SAMPLE_ROWS] if is_header(each, columns, exact=True)]
    if not headers and _is_row(cells, delimiter, head, columns):
        names = [head.special.get(number, str(number)) for number in range(1, len(cells) + 1)]
        return _without_header(records, head, lines, names)
    if headers and headers[0] != line:
        remedy = f"Line {headers[0]} names the columns. Remove the lines before it."
        raise records.wrong(Mistake(line, "is not the line with the names of the columns", remedy))
    names = [name.strip() or f"column {number}" for number, name in enumerate(cells, 1)]
    _check_names(names, line, records)
    return _rows(records, head, names, rest)


def _check_text(text: str, file: str) -> None:
    """Refuse NUL characters, and lines that are so long that their cells would fill the memory."""
    if (at := text.find("\x00")) >= 0:
        place = Place(file, text.count("\n", 0, at) + 1)
        raise SuiteError("contains a NUL character", remedy="Save the file again as CSV (UTF-8).", place=place)
    at = 0
    while len(text) - at > LONGEST_LINE:
        end = at + LONGEST_LINE
        following = max(text.rfind("\n", at, end), text.rfind("\r", at, end)) + 1
        if not following:
            place = Place(file, text.count("\n", 0, at) + 1)
            what = f"is longer than {LONGEST_LINE:,} characters"
            raise SuiteError(what, remedy="Put each row on a line of its own.", place=place)
        at = following


def _check_names(names: list[str], line: int, records: Records) -> None:
    """Refuse a header in which a name is given twice, or without columns for questions and answers."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        remedy = "Remove or rename one of them."
        raise records.wrong(Mistake(line, f"the column {shown(twice[0])} is given twice", remedy))
    try:
        layout_of(names, records.columns, read_as=records.read_as)
    except RowError as problem:
        raise records.wrong(Mistake(line, problem.message, problem.remedy)) from None


def _lines(text: str, file: str, delimiter: str, head: _Head) -> list[tuple[int, list[str]]]:
    """Return the cells of each row with the number of its first line.

    In a table with tabs, as Quizlet and Anki export it, a cell may hold quotation marks that do not enclose it. If the
    table is not valid CSV, they are therefore read as plain characters.
    """

    def found(**options: Any) -> Iterator[tuple[int, list[str]]]:
        rows = csv_lines(file, text, delimiter, skipinitialspace=True, **options)
        for number, (line, cells) in enumerate(rows, 1):
            check_number(number, Place(file, head.lines + line))
            yield head.lines + line, cells

    try:
        return list(found())
    except SuiteError:
        if delimiter != "\t":
            raise
        return list(found(quoting=csv.QUOTE_NONE))


def _rows(records: Records, head: _Head, names: list[str], lines: Iterable[tuple[int, list[str]]]) -> Records:
    sounds = 0
    for line, cells in lines:
        while len(cells) > len(names) and not cells[-1].strip():
            cells = cells[:-1]
        if len(cells) != len(names):
            what = f"has {plural(len(cells), 'cell')} under {plural(len(names), 'column')}"
            remedy = "Put quotation marks around cells that hold commas, semicolons or line breaks."
            records.mistakes.append(Mistake(line, what, remedy))
            continue
        if head.is_html or head.is_anki:
            if head.is_html and any(map(_MEDIA.search, cells)):
                remedy = "Remove this note, or write in words what is to be seen, and export it again."
                records.mistakes.append(Mistake(line, "holds an image, which is not trained", remedy))
                continue
            sounds += any(_SOUND.search(cell) for cell in cells)
            cells = [_SOUND.sub("", _plain(cell) if head.is_html else cell) for cell in cells]
            if any(map(_CLOZE.search, cells)):
                remedy = "Remove this note, or export only notes with a front and a back."
                records.mistakes.append(Mistake(line, "is a cloze note of Anki, which has no question", remedy))
                continue
        records.rows.append(Record(line, {name: cell.strip() for name, cell in zip(names, cells, strict=True)}))
    if sounds:
        records.notices.append(f"Left out: sounds in {plural(sounds, 'note')}.")
    return records


# --- delimiter and header ----------------------------------------------------------------------------------------


def _delimiter(text: str, file: str, columns: Columns) -> str:
    """Return the delimiter under which a line names the columns, and the rows have as many cells as the first line."""

    def fit(mark: str) -> tuple[bool, bool, int]:
        rows = [cells for _, cells in islice(csv_lines(file, text[:SAMPLE], mark, strict=False), SAMPLE_ROWS)]
        if not rows:
            return False, False, 0
        first, *rest = rows
        is_even = len(first) > 1 and sum(len(cells) == len(first) for cells in rest) * 2 >= len(rest)
        is_named = is_header(first, columns) or any(is_header(cells, columns, exact=True) for cells in rest)
        return is_named, is_even, len(first)

    return max(DELIMITERS, key=fit)


def _is_row(cells: list[str], delimiter: str, head: _Head, columns: Columns) -> bool:
    """Whether the first line, which does not name the usual columns, is a row: the file has no header.

    It is one in an export of Anki or Quizlet (two columns with a tab between them), if only its first cell is a
    question, and if the user gives the columns by their numbers.
    """
    given = [name for name in (columns.prompt, columns.answer) if name is not None]
    if given:
        return not is_header(cells, USUAL) and all(
            name.isdecimal() and name not in map(str.strip, cells) for name in given
        )
    if len(cells) < 2:
        return False
    is_asked = [cell.rstrip().endswith("?") for cell in cells]
    return head.is_anki or (len(cells) == 2 and (delimiter == "\t" or is_asked == [True, False]))


def _without_header(records: Records, head: _Head, lines: list[tuple[int, list[str]]], names: list[str]) -> Records:
    """Return the rows of a table without header. If the user names no columns, they are the first two."""
    free = [name for name in names if name not in head.special.values()]
    is_free = records.columns.prompt is None and records.columns.answer is None
    if is_free and len(free) > 1 and not is_header(names, records.columns):
        records.columns = replace(records.columns, prompt=free[0], answer=free[1])
        records.notices.append(_order(records, head, names, lines[0]))
    return _rows(records, head, names, lines)


def _order(records: Records, head: _Head, names: list[str], first: tuple[int, list[str]]) -> str:
    question, answer = (names.index(str(name)) for name in (records.columns.prompt, records.columns.answer))
    texts = [_plain(cell) if head.is_html else cell for cell in first[1]]
    cells = [shown(texts[place].strip()) if place < len(texts) else "" for place in (question, answer)]
    return (
        f"{records.name} has no header, so column {question + 1} is read as the question and column {answer + 1} as "
        f"the answer. The first row is: {', '.join(cells)}."
        + ("" if head.is_anki else " If that is a header, rename its columns to question and answer.")
    )


def _head(text: str) -> _Head:
    """Read the lines before the rows: Excel's `sep=;`, and Anki's directives such as `#separator:tab`."""
    if found := _SEP.match(text):
        return _Head(found.end(), 1, found[1])
    head = _Head()
    while head.lines < _MOST_DIRECTIVES and (found := _DIRECTIVE.match(text, head.length)):
        key, value = found[1].strip().lower(), found[2].strip()
        subject = key.removesuffix(" column")
        if key == "separator":
            head.delimiter = _ANKI_MARKS.get(value.lower(), value[:1].strip('"') or None)
        elif key == "html":
            head.is_html = value.lower() == "true"
        elif key == "columns":
            head.names = next(csv.reader([found[2]], delimiter=head.delimiter or "\t"), [])
        elif subject in _ANKI_COLUMNS and value.isdecimal() and len(value) < 4:
            head.special[int(value)] = subject
        elif key not in _ANKI_COLUMNS:  # `#deck:NAME` names the deck of all notes
            break
        head.length, head.lines, head.is_anki = found.end(), head.lines + 1, True
    if head.names is not None:
        head.names = [head.special.get(number, name.strip()) for number, name in enumerate(head.names, 1)]
    return head


# --- HTML of Anki ------------------------------------------------------------------------------------------------


def _without(text: str, begin: str, end: str) -> str:
    """Remove what lies between two texts, with both."""
    parts, at = [], 0
    while (found := text.find(begin, at)) >= 0 and (last := text.find(end, found)) >= 0:
        parts.append(text[at:found])
        at = last + len(end)
    return "".join((*parts, text[at:]))


def _untagged(tag: re.Match[str]) -> str:
    """Return what a tag means in plain text: 10<sup>3</sup> is 10^(3), and cells of a table are apart."""
    name, is_end = tag[1].lower(), tag[0].startswith("</")
    if name in _RAISED:
        return ")" if is_end else f"{_RAISED[name]}("
    return "\n" if name in _BREAKS else " " if name in ("td", "th") and not is_end else ""


def _plain(cell: str) -> str:
    """Return the text of a cell with HTML: entities as characters, breaks and blocks as lines, other tags left out."""
    if "<" not in cell and "&" not in cell:
        return cell
    for begin, end in _UNSEEN:
        cell = _without(cell, begin, end)
    text = _RAISED_DIGITS.sub(lambda raised: raised[2].translate(_DIGITS[raised[1]]), _TAG.sub(_untagged, cell))
    try:
        text = unescape(text).replace("\xa0", " ")
    except ValueError:  # the number of a character has thousands of digits
        return cell
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())
