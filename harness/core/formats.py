"""Format versions of the files that the harness writes."""

from __future__ import annotations

FORMAT = 1
"""Format version of every file except results.json. Files of newer versions are refused, older ones upgraded."""
RESULTS_FORMAT = 2
"""Format version of results.json. Version 2 stores the answer of a sample as an `Answer`."""
