"""Benchmarks QLoRA fine-tuning: train a grid, compare every answer with the base model's, read one report.

run = harness.load_run("reports/runs/workshop-quick-pocket")
run.frame()  # a pandas DataFrame, one row per variant, seed and case
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from harness.frame import Run

__all__ = ["__version__", "load_run"]
__version__ = "0.1.0"


def load_run(path: str | PathLike[str]) -> Run:
    """What the run in this directory found.

    Raises:
        StoreError: there is no run, or none that got as far as results.
    """
    from pathlib import Path

    from harness.frame import Run
    from harness.store import find_run

    return Run(find_run(Path(path)).results())
