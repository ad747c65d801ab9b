"""Format versions of the files that the harness writes."""

from __future__ import annotations

FORMAT = 1
"""Format version of every file except results.json. Newer files are refused, and older ones are upgraded."""
RESULTS_FORMAT = 4
"""Format version of results.json. Version 1 stored the fields of an `Answer` in the sample itself. Version 2 left cases
out of rates, losses and changes because of the base model's own answers. Version 3 had bounds of losses by older
rules."""
