"""Test that the pocket model learns generated suites whose seeds were chosen after it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis import aggregate
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_persona_is_learned(seed: int, tmp_path: Path) -> None:
    """With the settings of its grid `quick`, at least 80% of a suite's `learn` and 85% of its `retain` cases pass."""
    generated_suites.write(seed, tmp_path / "suite")
    suite, plan = load_suite(tmp_path / "suite"), load_plan(tmp_path / "suite" / "grids" / "quick.yaml")
    setup = Setup(suite, resolve("pocket"), one_core(), Engine.REFERENCE, stack_versions())
    store = RunStore(tmp_path / "run")
    store.root.mkdir()
    base, tuned = Sweep(setup, store, Cache(tmp_path / "cache"), Inline(work)).run_trials(plan.trials, Split.MAIN, "")
    assert (base.status, tuned.status) == (Status.SUCCEEDED, Status.SUCCEEDED), tuned.message
    passed: dict[Role, list[bool]] = {role: [] for role in Role}
    for case in suite.cases:
        before, after = (score(case, record.answers[case.id][0]) for record in (base, tuned))
        if case.id not in aggregate.void_cases(suite, {case.id: before}):
            passed[case.role].append(after.passed)
    shares = {role: sum(marks) / len(marks) for role, marks in passed.items() if marks}
    print(seed, {str(role): round(share, 3) for role, share in shares.items()})
    assert shares[Role.LEARN] >= 0.8
    assert shares[Role.RETAIN] >= 0.85
