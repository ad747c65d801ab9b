"""Versions of the files that the harness writes."""

from __future__ import annotations

FORMAT = 1
"""Version of every file the harness writes, except results.json. Newer ones are refused, older ones upgraded."""


RESULTS_FORMAT = 2
"""Version of results.json. Since 2 a sample holds its `Answer`."""
