"""Prints the figures of a benchmark or study as JSON, and writes them to a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def print_figures(figures: Mapping[str, Any], output: Path | None) -> None:
    """Print figures, and also write them to `output`, if given, whose folder is made."""
    text = json.dumps(figures, indent=1)
    print(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8")
