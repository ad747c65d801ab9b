"""Tests of the tiny suite with which the session `real` of noxfile.py trains `smollm2` in CI, and of its baseline."""

from __future__ import annotations

from pathlib import Path

from harness.analysis.regression.baseline import _digest
from harness.core.suite import Role, Split
from harness.models import smollm2
from harness.storage.baselines import read_baseline
from harness.suites import load_suite
from harness.suites.grids import load_plan
from harness.suites.rehearsal import rehearsal_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "support" / "real_suite"


def test_the_baseline_is_of_this_suite() -> None:
    """The committed baseline has the cases, training rows, settings and model that the session uses."""
    suite, plan = load_suite(FOLDER), load_plan(FOLDER / "grids" / "gate.yaml")
    known = read_baseline(ROOT / "reports" / "baselines" / "smollm2.json")
    assert known.model.name == smollm2.NAME
    assert known.training_rows == tuple(_digest(example) for example in suite.examples)
    assert [(case.id, case.messages, case.assertions, case.critical) for case in known.suite.cases] == [
        (case.id, case.messages, case.assertions, case.critical) for case in suite.of(Split.MAIN)
    ]
    assert [(each.name, each.settings) for each in known.variants] == [(v.name, v.settings) for v in plan.variants]


def test_every_case_is_critical() -> None:
    """Every case is critical and passes under the baseline's variant, so that losing any of them is a regression."""
    suite, plan = load_suite(FOLDER), load_plan(FOLDER / "grids" / "gate.yaml")
    assert all(case.critical for case in suite.cases)
    assert {case.role for case in suite.cases} == {Role.LEARN, Role.RETAIN}
    rehearsal = rehearsal_of(suite, plan)
    assert rehearsal is not None
    assert len(rehearsal.prompts) >= 2 * plan.variants[0].settings.rehearsal
    (variant,) = read_baseline(ROOT / "reports" / "baselines" / "smollm2.json").variants
    assert all(answer.passed for answers in variant.answers.values() for answer in answers)
