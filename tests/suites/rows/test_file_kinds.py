"""Tests that a file of rows is recognised by its first bytes, whatever its name, and that its text is decoded."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.errors import SuiteError
from harness.suites.rows import read_rows
from harness.suites.rows.file_kinds import text_of

ROWS = b"question,answer\nHi?,Ho.\n"


def archive(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for name in names:
            packed.writestr(name, "x")
    return made.getvalue()


@pytest.mark.parametrize(
    ("data", "message", "remedy"),
    [
        (archive("[Content_Types].xml", "xl/workbook.xml"), "is a spreadsheet", "save it as CSV"),
        (archive("mimetype/application/vnd.oasis.opendocument.spreadsheet"), "is a spreadsheet", "save it as CSV"),
        (archive("collection.anki21", "media"), "is a package of Anki", "Notes in Plain Text"),
        (archive("word/document.xml"), "is a Word document", "table with two columns"),
        (archive("rows.csv"), "is a ZIP archive", "Unpack it first"),
        (b"\xd0\xcf\x11\xe0rest", "an old Office program", "save it as CSV"),
        (b"%PDF-1.7", "is a PDF document", "save it as CSV"),
        (b"ARROW1\x00\x00", "is an Arrow file", "load_from_disk(FOLDER).to_json"),
        (b"\n<!DOCTYPE html><html>", "is a web page", "the button Raw"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8 text", "Save the file as UTF-8"),
    ],
)
def test_files_that_hold_no_rows(data: bytes, message: str, remedy: str) -> None:
    """A file that is known to hold no rows is refused by its name, with the way to get rows out of it."""
    with pytest.raises(SuiteError) as caught:
        read_rows(data, "rows.csv")
    assert message in caught.value.message
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files(pack: Callable[[bytes], bytes]) -> None:
    """A compressed file is refused with the remedy to unpack it. What was packed is read."""
    with pytest.raises(SuiteError, match=r"is compressed[^\n]*\nUnpack it first, and name the file inside"):
        read_rows(pack(ROWS), "rows.csv.gz")
    assert read_rows(ROWS, "rows.csv").examples


def test_a_database_can_be_exported_as_its_remedy_says(tmp_path: Path) -> None:
    """A database is refused. When its table is exported as CSV, as the remedy says, the rows are read."""
    file = tmp_path / "rows.db"
    with sqlite3.connect(file) as made:
        made.execute("create table faq (question text, answer text)")
        made.execute("insert into faq values ('Hi?', 'Ho.')")
        rows = made.execute("select * from faq").fetchall()
    made.close()
    with pytest.raises(SuiteError, match="is a database\nExport the table with questions and answers as CSV"):
        read_rows(file.read_bytes(), "rows.db")
    exported = io.StringIO()
    csv.writer(exported).writerows([("question", "answer"), *rows])
    assert len(read_rows(exported.getvalue().encode(), "rows.csv").examples) == 1


@pytest.mark.slow
def test_a_saved_dataset_can_be_exported_as_its_remedy_says(tmp_path: Path) -> None:
    """A file of `save_to_disk` is refused. The Python of the remedy writes rows that are read."""
    script = (
        "import datasets, sys; datasets.Dataset.from_dict({'question': ['Hi?'], 'answer': ['Ho.']}).save_to_disk('d')"
    )
    run_python(script, tmp_path)
    (saved,) = (tmp_path / "d").glob("*.arrow")
    with pytest.raises(SuiteError) as caught:
        read_rows(saved.read_bytes(), "rows.arrow")
    code = caught.value.remedy.removeprefix("In Python: ").partition(", then")[0].replace("FOLDER", "'d'")
    run_python(f"import datasets; {code}", tmp_path)
    assert len(read_rows((tmp_path / "rows.jsonl").read_bytes(), "rows.jsonl").examples) == 1


def run_python(code: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, timeout=120)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_is_recognised(encoding: str) -> None:
    """UTF-8 and UTF-16 are recognised with and without a byte order mark, and without a notice."""
    assert text_of("question,answer\nWo?,Köln\n".encode(encoding), "rows.csv") == ("question,answer\nWo?,Köln\n", [])


def test_a_table_of_windows_is_read_with_a_notice() -> None:
    """A table that is not UTF-8 is read as Windows-1252; the notice shows a word by which a wrong guess is seen."""
    text, notices = text_of("question,answer\nWo?,„Köln“ – 5 €\n".encode("cp1252"), "a/rows.csv")
    assert text == "question,answer\nWo?,„Köln“ – 5 €\n"
    (notice,) = notices
    assert notice.startswith("rows.csv is not UTF-8 and was read as Windows-1252, as Excel writes it. Line 2 has ")
    assert notice.endswith(' Line 2 has "„Köln“". If letters are wrong, save the file as CSV UTF-8.')


def test_bytes_that_no_text_holds_are_refused() -> None:
    """A table with bytes that neither UTF-8 nor Windows-1252 has is refused at its line."""
    with pytest.raises(SuiteError, match=r"rows\.csv:2: is not UTF-8 text"):
        text_of(b"question,answer\na,\x81\n", "rows.csv")
