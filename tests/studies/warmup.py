"""Checks the workshop's claim that training breaks without warmup, from a run of the grid `warmup`.

    harness run suites/workshop --grid warmup --profile cpu --confirm-seeds 0
    python -m tests.studies.warmup reports/runs/workshop-warmup-pocket reports/studies/warmup

Writes summary.json and summary.md. `diverged` counts the seeds whose loss, gradient norm or weights were not finite. Of
the remaining seeds, `ended_high` counts those whose mean loss in the last epoch is not below that in the first, and
`spiked` those with a loss of more than twice the first step's.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from harness.analysis.divergence import divergence_rates
from harness.core.run_results import Outcome, Results
from harness.core.suite import Role
from harness.core.training_outcome import Status, Training
from harness.storage.files import write_text
from harness.storage.runs import RunStore
from harness.suites.grids import load_plan

GRID = Path(__file__).resolve().parents[2] / "suites" / "workshop" / "grids" / "warmup.yaml"
COLUMNS = (
    "Scheduler", "Warmup", "Diverged", "Last epoch's loss not below the first's", "Some loss above twice the first",
    "Median loss, first and last epoch", "generalise passed",
)  # fmt: skip
SPIKE = 2.0
PER_EPOCH = 3


def study(results: Results) -> dict[str, Any]:
    """Return one row for each variant of the grid, with the provenance of the run."""
    sentences = {each.variant: each for each in divergence_rates(results)}
    cells = [asdict(sentences[v.name]) | _course(v) for v in results.variants if v.name in sentences]
    facts = results.run.provenance
    return {
        "command": facts.command,
        "model": results.run.model.name,
        "device": facts.machine.device,
        "versions": facts.versions,
        "seeds": list(results.run.plan.seeds),
        "cells": cells,
    }


def _course(variant: Outcome) -> dict[str, Any]:
    trained = [t for t in variant.training if t.status is Status.SUCCEEDED]
    settings = variant.settings
    return {
        "scheduler": settings and settings.scheduler.value,
        "warmup": settings and settings.warmup,
        "ended_high": sum(_mean(t, -PER_EPOCH) >= _mean(t, 0) for t in trained),
        "spiked": sum(max(_losses(t)) > SPIKE * _losses(t)[0] for t in trained),
        "first_epoch_loss": round(median(_mean(t, 0) for t in trained), 3) if trained else None,
        "last_epoch_loss": round(median(_mean(t, -PER_EPOCH) for t in trained), 3) if trained else None,
        "passed": {str(role): f"{rate.passed}/{rate.total}" for role, rate in variant.rates.items()},
        "generalise": variant.rates[Role.GENERALISE].value if Role.GENERALISE in variant.rates else None,
    }


def _losses(training: Training) -> list[float]:
    return [step.loss for step in training.steps if step.loss is not None]


def _mean(training: Training, start: int) -> float:
    losses = _losses(training)
    return fmean(losses[start:][:PER_EPOCH])


def page(found: dict[str, Any]) -> str:
    """Return the study as a markdown page."""
    lines = [
        "# Does training break without warmup?",
        "",
        f"`{found['command']}` on {found['device']}, read by `tests/studies/warmup.py`.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for cell in found["cells"]:
        losses = f"{cell['first_epoch_loss']} to {cell['last_epoch_loss']}"
        diverged, passed = f"{cell['diverged']} of {cell['seeds']}", cell["passed"].get("generalise", "-")
        values = (cell["scheduler"], cell["warmup"], diverged, cell["ended_high"], cell["spiked"], losses, passed)
        lines.append(f"| {' | '.join(map(str, values))} |")
    lines += ["", *(f"- {cell['variant']}: {cell['sentence']}" for cell in found["cells"]), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    results = RunStore(given.run).results()
    # The stored run may be older than the text `about` of the grid; its variants are the same.
    about = load_plan(GRID).about
    found = study(replace(results, run=replace(results.run, plan=replace(results.run.plan, about=about))))
    write_text(given.output / "summary.json", json.dumps(found, indent=1) + "\n")
    write_text(given.output / "summary.md", page(found))


if __name__ == "__main__":
    main()
