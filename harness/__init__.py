"""Benchmark QLoRA fine-tuning: train a grid of settings, compare every answer with the base model's, read one report.

The command line is the main interface (`harness --help`). In Python, load finished runs:

    run = harness.load_run("reports/runs/workshop-quick-pocket")
    run.frame()  # a pandas DataFrame with one row per variant, seed and case
    harness.display(run)  # the report in a notebook cell
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
    """Load the results of the run in a directory.

    Raises:
        StoreError: the directory contains no run, or the run has no results yet.
    """
    from pathlib import Path

    from harness.report.data_frame import Run
    from harness.storage.runs import find_run

    return Run(find_run(Path(path)).results())


def display(run: Run | str | PathLike[str]) -> Notebook:
    """Return a run's report as an object that Jupyter, Colab and VS Code display as the output of a notebook cell.

    The report is complete in the cell, loads nothing from elsewhere, and does not change the notebook's own styles.

    Args:
        run: a run that `load_run` returned, or the directory of a run.

    Raises:
        StoreError: the directory contains no run, or the run has no results yet.
    """
    from harness.report import Notebook, fragment
    from harness.report.data_frame import Run

    results = (run if isinstance(run, Run) else load_run(run)).results
    return Notebook(fragment(results, now=results.finished), results.run.suite.name)
