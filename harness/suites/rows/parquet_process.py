"""`python -P -m harness.suites.rows.parquet_process`: reads Parquet files, in a child process with limits."""

from __future__ import annotations

import base64
import json
import math
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.core.limited_process import serve

BATCH = 500
"""Rows that are decoded at once."""


def rows_as_json(most: Any, item: Any) -> str:
    """Return the rows of a Parquet file, one JSON object per line. `item` is the file in Base64.

    Reading ends after `most` characters, and the result is then longer than that.
    """
    file = pq.ParquetFile(pa.BufferReader(base64.b64decode(item)))
    names = file.schema_arrow.names
    if len(set(names)) < len(names):
        raise ValueError("a column is given twice")
    lines: list[str] = []
    length = 0
    for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
        for row in batch.to_pylist(maps_as_pydicts="strict"):
            lines.append(_line(row))
            length += len(lines[-1]) + 1
            if length > most:
                break
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, default=_other, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(row), ensure_ascii=False, default=_other)


def _finite(value: Any) -> Any:
    """Return a value in which nothing stands for infinite numbers and NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _other(value: Any) -> str:
    """Return a value that JSON does not have as text: a date, a decimal number; of bytes only their number."""
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    serve(rows_as_json, sys.argv[1])
