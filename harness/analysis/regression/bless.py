"""`harness bless`: store a run as a baseline."""

from __future__ import annotations

import re
from pathlib import Path

from harness.analysis.regression.baseline import BASELINES, NAME, baseline_of, results_of
from harness.core.errors import UsageError
from harness.core.run_results import Results
from harness.core.training_outcome import Status
from harness.storage.baselines import write_baseline
from harness.storage.runs import RunStore


def bless(store: RunStore, name: str | None, folder: Path = BASELINES) -> Path:
    """Store a run as a baseline and return the path of the file. The default name is SUITE-GRID-MODEL.

    Raises:
        UsageError: the name is not allowed, or trials of the run have no result.
        StoreError: the run has no finished trial or no answers of the base model, or the file cannot be written.
    """
    results = results_of(store)
    waiting = [
        f"{row.name}, seed {seed}: {status}"
        for row in results.variants
        if Status.STOPPED not in row.statuses
        for seed, status in zip(row.seeds, row.statuses, strict=True)
        if not status.is_result
    ]
    if waiting:
        remedy = "Run the same `harness run` command again: it runs only the missing trials."
        raise UsageError(f"{len(waiting)} trials have no result, among them {waiting[0]}", remedy=remedy)
    chosen = name or _default_name(results)
    if not NAME.fullmatch(chosen):
        remedy = "Use letters, digits, dots, dashes and underscores, and begin with a letter or a digit."
        raise UsageError(f"{chosen!r} cannot be the name of a baseline", remedy=remedy)
    path = folder / f"{chosen}.json"
    write_baseline(path, baseline_of(results, chosen))
    return path


def _default_name(results: Results) -> str:
    run = results.run
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{run.suite.name}-{run.plan.grid}-{run.model.name}").strip("-.") or "run"
