"""Where runs and the cache lie, relative to the folder in which a command is started."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("reports/runs")
CACHE = Path("reports/cache")
