"""Benchmarks QLoRA fine-tuning: train a grid, compare every answer with the base model's, read one report.

run = harness.load_run("reports/runs/workshop-quick-pocket")
run.frame()  # a pandas DataFrame, one row per variant, seed and case
harness.display(run)  # its report, in a notebook's cell
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from harness.report import Notebook
    from harness.report.data_frame import Run

__all__ = ["__version__", "display", "load_run"]
__version__ = "0.1.0"


def load_run(path: str | PathLike[str]) -> Run:
    """What the run in this directory found.

    Raises:
        StoreError: there is no run, or none that got as far as results.
    """
    from pathlib import Path

    from harness.report.data_frame import Run
    from harness.storage.runs import find_run

    return Run(find_run(Path(path)).results())


def display(run: Run | str | PathLike[str]) -> Notebook:
    """A run's report for a notebook: as a cell's last line it shows itself, in Jupyter, Colab and VS Code alike.

    The whole page stands in the cell and loads nothing; what the notebook looks like stays as it is.

    Raises:
        StoreError: there is no run in this directory, or none that got as far as results.
    """
    from harness.report import Notebook, fragment
    from harness.report.data_frame import Run

    results = (run if isinstance(run, Run) else load_run(run)).results
    return Notebook(fragment(results, now=results.finished), results.run.suite.name)
