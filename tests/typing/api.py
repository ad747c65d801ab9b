"""Code that uses the public interface as users do. It is only type-checked (`nox -s types`), never run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import harness
from harness.core.run_results import Outcome, Results
from harness.report import Notebook
from harness.report.data_frame import Run

run: Run = harness.load_run("reports/runs/workshop-quick-pocket")
same: Run = harness.load_run(Path("reports") / "runs" / "workshop-quick-pocket")
shown: Notebook = harness.display(run)
by_path: Notebook = harness.display(Path("reports") / "runs")
frame: pd.DataFrame = run.frame()
results: Results = run.results
best: str | None = results.choice.variant
rates: dict[str, float | None] = {role.value: rate.value for role, rate in results.base.rates.items()}
variants: tuple[Outcome, ...] = results.variants
version: str = harness.__version__
