"""Tests that Parquet files are read in a child process with limits."""

from __future__ import annotations

import datetime
import decimal
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.core.errors import SuiteError
from harness.core.limited_process import Limits
from harness.suites.rows import read_rows
from harness.suites.rows.parquet import parquet_text


def parquet(table: pa.Table, **options: Any) -> bytes:
    made = io.BytesIO()
    pq.write_table(table, made, **options)
    return made.getvalue()


def test_values_of_every_kind() -> None:
    """Dates, decimal numbers, bytes and missing values of other columns do not hinder reading."""
    row = {
        "question": "When?", "answer": "Now.", "day": datetime.date(2026, 11, 30), "price": decimal.Decimal("4.50"),
        "icon": b"\x00\xff", "score": float("inf"), "nothing": None,
    }  # fmt: skip
    found = read_rows(parquet(pa.Table.from_pylist([row])), "rows.parquet")
    assert [m.content for m in found.examples[0].messages] == ["When?", "Now."]
    assert found.notices == ('Left out of rows.parquet: the columns "day", "price" and "icon".',)


def test_rows_are_counted() -> None:
    """A mistake in a Parquet file names the number of the row."""
    data = parquet(pa.Table.from_pylist([{"question": "a", "answer": "b"}, {"question": "c", "answer": ""}]))
    (mistake,) = read_rows(data, "rows.parquet").mistakes
    assert (mistake.number, mistake.message) == (2, "has no answer")


def test_a_damaged_file_is_an_error() -> None:
    """A Parquet file whose end is missing is an error that says so."""
    data = parquet(pa.table({"question": ["a"], "answer": ["b"]}))
    for damaged in (data[:-20], data[:4], data[:40] + bytes(40) + data[80:]):
        with pytest.raises(SuiteError, match="is a damaged Parquet file") as caught:
            read_rows(damaged, "rows.parquet")
        assert caught.value.remedy


def test_a_column_that_is_given_twice_is_refused() -> None:
    """A Parquet file with two columns of the same name is refused, because one of them would be lost."""
    data = parquet(pa.Table.from_arrays([pa.array(["a"])] * 3, names=["question", "answer", "answer"]))
    with pytest.raises(SuiteError, match="a column is given twice"):
        read_rows(data, "rows.parquet")


def test_a_bomb_reaches_a_limit() -> None:
    """A small file that holds gigabytes of text is refused before they are in memory."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 3000), pa.array(["x" * 2**20]))
    data = parquet(pa.table({"question": text, "answer": text}))
    assert len(data) < 2**20
    with pytest.raises(SuiteError, match=r"is a Parquet file; reading it (needed more than|wrote more than)"):
        parquet_text(data, "rows.parquet", Limits(seconds=30.0, memory=2**30, output=2**20))


@pytest.mark.slow
def test_the_remedy_for_a_large_file_works(tmp_path: Path) -> None:
    """When a file is too large, the Python of the remedy writes a sample that is read."""
    rows = [{"question": f"Question {n}?", "answer": "x" * 100} for n in range(1500)]
    data = parquet(pa.Table.from_pylist(rows))
    with pytest.raises(SuiteError, match="wrote more than 100,000 characters") as caught:
        parquet_text(data, "rows.parquet", Limits(seconds=30.0, memory=3 * 2**30, output=100_000))
    (tmp_path / "rows.parquet").write_bytes(data)
    code = caught.value.remedy.partition("In Python: ")[2].partition(", then")[0].replace("FILE", "'rows.parquet'")
    subprocess.run([sys.executable, "-c", f"import datasets; {code}"], cwd=tmp_path, check=True, capture_output=True)
    assert len(read_rows((tmp_path / "rows.jsonl").read_bytes(), "rows.jsonl").examples) == 1000
