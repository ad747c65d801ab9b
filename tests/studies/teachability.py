"""Teaches the pocket model ten generated suites and records the share of cases that pass afterwards.

    python -m tests.studies.teachability --output reports/studies/teachability.json

The test `tests/models/test_pocket_teachability.py` repeats the first seed. About two minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from harness.core.engines import Engine
from harness.core.suite import Role, Split
from harness.core.training_outcome import Status
from harness.engine.worker import work
from harness.hardware.environment import stack_versions
from harness.models.resolving import resolve
from harness.runner.executors.inline import Inline
from harness.runner.sweep import Sweep
from harness.scoring import score
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.runs import RunStore
from harness.suites import load_suite
from harness.suites.grids import load_plan
from tests.support import generated_suites
from tests.support.short_trainings import one_core

SEEDS = range(901, 911)
"""Seeds of generated suites, chosen after the model was finished, and never changed since then."""
LEAST = {Role.LEARN: 0.8, Role.RETAIN: 0.85}
"""The share of cases that must pass, by role."""


def pass_rates(seed: int, folder: Path) -> dict[Role, float]:
    """Train the suite generated from `seed` with its grid `quick`; return the share of cases that pass, by role."""
    generated_suites.write(seed, folder / "suite")
    suite, plan = load_suite(folder / "suite"), load_plan(folder / "suite" / "grids" / "quick.yaml")
    setup = Setup(suite, resolve("pocket"), one_core(), Engine.REFERENCE, stack_versions())
    store = RunStore(folder / "run")
    store.root.mkdir()
    base, tuned = Sweep(setup, store, Cache(folder / "cache"), Inline(work)).run_trials(plan.trials, Split.MAIN, "")
    if {base.status, tuned.status} != {Status.SUCCEEDED}:
        raise RuntimeError(tuned.message)
    passed: dict[Role, list[bool]] = {role: [] for role in Role}
    for case in suite.cases:
        passed[case.role].append(score(case, tuned.answers[case.id][0]).passed)
    return {role: sum(cases) / len(cases) for role, cases in passed.items() if cases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    output: Path = parser.parse_args().output
    rows = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            rates = pass_rates(seed, Path(folder))
        rows.append({"seed": seed} | {role.value: round(rate, 3) for role, rate in rates.items()})
        print(rows[-1], flush=True)
    command = f"python -m tests.studies.teachability --output {output}"
    output.write_text(json.dumps({"command": command, "suites": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
