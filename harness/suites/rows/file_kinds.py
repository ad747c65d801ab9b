"""What a file of rows is, by its first bytes: text in some encoding, Parquet, or something that holds no rows."""

from __future__ import annotations

import re
from pathlib import PurePath

from harness.core.errors import Place, SuiteError
from harness.core.yaml import decoded, shown

PARQUET = b"PAR1"
AS_CSV = "Open it in the spreadsheet program, and save it as CSV (UTF-8)."
AS_JSONL = "Unpack it first, and name the file inside."
_SPREADSHEETS = (b"xl/workbook", b"application/vnd.oasis.opendocument.spreadsheet")
_ANKI = (b"collection.anki2", b"collection.anki21")
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "is compressed (gzip)", AS_JSONL),
    (b"BZh", "is compressed (bzip2)", AS_JSONL),
    (b"\xfd7zXZ", "is compressed (xz)", AS_JSONL),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd)", AS_JSONL),
    (b"7z\xbc\xaf\x27\x1c", "is compressed (7z)", AS_JSONL),
    (b"\xd0\xcf\x11\xe0", "is a document of an old Office program", AS_CSV),
    (b"%PDF", "is a PDF document", "Copy questions and answers into a table with two columns, and save it as CSV."),
    (b"SQLite format 3", "is a database", "Export the table with questions and answers as CSV."),
    (
        b"version https://git-lfs",
        "is a pointer of Git LFS and not the file itself",
        "Run `git lfs pull` in its repository, or download the file from its page.",
    ),
)
_ARROW = (b"ARROW1", b"\xff\xff\xff\xff")
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)\b", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")


def check_kind(data: bytes, file: str) -> None:
    """Refuse files that are known to hold no rows in a form that is read, each with the way to get rows out of it.

    Raises:
        SuiteError: the file is an archive, a document, a database, a web page or a pointer.
    """
    for begin, what, remedy in _KINDS:
        if data.startswith(begin):
            raise SuiteError(what, remedy=remedy, place=Place(file))
    if data.startswith(b"PK\x03\x04"):
        raise _archive(data, file)
    if data.startswith(_ARROW):
        remedy = 'In Python: datasets.load_from_disk(FOLDER).to_json("rows.jsonl"), then name rows.jsonl.'
        raise SuiteError("is an Arrow file", remedy=remedy, place=Place(file))
    if _WEB_PAGE.match(data[:200]):
        remedy = "Download the file itself: on GitHub with the button Raw, from a Google sheet with Download, CSV."
        raise SuiteError("is a web page and not a table", remedy=remedy, place=Place(file))


def _archive(data: bytes, file: str) -> SuiteError:
    what, remedy = "is a ZIP archive", AS_JSONL
    if any(name in data for name in _SPREADSHEETS):
        what, remedy = "is a spreadsheet", AS_CSV
    elif any(name in data for name in _ANKI):
        what = "is a package of Anki"
        remedy = "In Anki, choose File, Export, and as the format Notes in Plain Text (.txt)."
    elif b"word/document" in data:
        what = "is a Word document"
        remedy = "Copy questions and answers into a table with two columns, and save it as CSV (UTF-8)."
    return SuiteError(what, remedy=remedy, place=Place(file))


def text_of(data: bytes, file: str) -> tuple[str, list[str]]:
    """Return the text of a file, and notices if its encoding had to be guessed.

    UTF-8 and UTF-16 are recognised, with or without a byte order mark. A table in another encoding is read as
    Windows-1252, which Excel writes in Western Europe and America.

    Raises:
        SuiteError: the file is no text, or JSON in another encoding than UTF-8 or UTF-16.
    """
    if encoding := _utf_16(data):
        try:
            return data.decode(encoding), []
        except UnicodeDecodeError:
            raise SuiteError("is not UTF-16 text", remedy="Save the file as UTF-8.", place=Place(file)) from None
    try:
        return decoded(data, file, SuiteError), []
    except SuiteError:
        if data.lstrip()[:1] in (b"{", b"["):
            raise
        found = _windows(data)
        if found is None:
            raise
    return found, [_guessed(found, file)]


def _utf_16(data: bytes) -> str | None:
    """Return the name of the encoding if a text is UTF-16. ASCII characters have a zero byte in it."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    even, odd = data[:2000:2].count(0), data[1:2000:2].count(0)
    half = max(1, len(data[:2000]) // 4)
    return "utf-16-le" if odd > half and not even else "utf-16-be" if even > half and not odd else None


def _windows(data: bytes) -> str | None:
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else text


def _guessed(text: str, file: str) -> str:
    """Return the notice about a guessed encoding, with the first word by which the user sees whether it is right."""
    at = next(iter(re.finditer(r"[^\x00-\x7f]", text))).start()
    near = text[max(0, at - 20) : at + 20]
    word = next((word for word in re.split(r"[\s,;\"]+", near) if not word.isascii()), near)
    return (
        f"{PurePath(file).name} is not UTF-8 and was read as Windows-1252, as Excel writes it. "
        f"Line {text.count(chr(10), 0, at) + 1} has {shown(word)}. If letters are wrong, save the file as CSV UTF-8."
    )
