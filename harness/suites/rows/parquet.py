"""Read rows from Parquet in a child process: a damaged or hostile file can exhaust memory or crash its reader."""

from __future__ import annotations

import base64

from harness.core.errors import Place, SuiteError
from harness.core.limited_process import LimitedProcess, LimitReachedError, Limits, Refused

LIMITS = Limits(seconds=30.0, memory=3 * 2**30, output=64 * 2**20)
"""Limits of reading one file. Its rows may have as much text as a file of JSON may have."""


def parquet_text(data: bytes, file: str, limits: Limits = LIMITS) -> str:
    """Return the rows of a Parquet file as JSON, one object per line.

    Raises:
        SuiteError: the file is damaged, holds too much, or its reader reached a limit.
    """
    process = LimitedProcess("harness.suites.rows.parquet_process", limits)
    try:
        (found,) = process.work(limits.output, [base64.b64encode(data).decode("ascii")])
    except LimitReachedError as reached:
        remedy = (
            "Take a sample of its rows. In Python: datasets.Dataset.from_parquet(FILE).select(range(1000)).to_json("
            '"rows.jsonl"), then name rows.jsonl.'
        )
        raise SuiteError(f"is a Parquet file; reading it {reached}", remedy=remedy, place=Place(file)) from None
    finally:
        process.close()
    if isinstance(found, Refused):
        remedy = "Download the file again, or export it as JSONL."
        raise SuiteError(f"is a damaged Parquet file: {found.reason}", remedy=remedy, place=Place(file))
    return str(found)
