"""Default folders of runs and of the cache, relative to the current directory."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("reports/runs")
CACHE = Path("reports/cache")
