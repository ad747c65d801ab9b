"""Tests of what `harness plan` says about passes and places."""

from __future__ import annotations

import pytest

from harness.cli import main
from harness.cli.passes import pass_lines
from harness.core.engines import Engine
from harness.core.settings import Plan, Settings, Trial
from harness.runner.composition import Composition
from harness.runner.executors.protocol import ONLY, Place
from harness.suites.grids import trial_id

ROWS = [Settings(learning_rate=n * 1e-4) for n in range(1, 25)]
PLAN = Plan("quick", (), (0,), tuple(Trial(trial_id(s, 0), "", s, 0) for s in ROWS))
TWO = (Place("GPU 0"), Place("GPU 1"))


def test_passes_and_places_are_told() -> None:
    """The sizes of passes are listed, and with several places how many passes each gets; an idle place has a remedy."""
    assert list(pass_lines(PLAN, Composition(), (ONLY,))) == ["Passes: 3 passes of 8 trials."]
    assert list(pass_lines(PLAN, Composition(), TWO)) == [
        "Passes: 3 passes of 8 trials.",
        "GPU 0: 2 passes; GPU 1: 1 pass.",
    ]
    wide = list(pass_lines(PLAN, Composition(24), TWO))
    assert wide[0] == "Passes: 1 pass of 24 trials."
    assert "`--width 12`" in wide[2]
    assert list(pass_lines(PLAN, Composition(12), TWO))[1] == "GPU 0: 1 pass; GPU 1: 1 pass."


def test_long_passes_are_dealt_first() -> None:
    """A place that gets a long pass gets fewer passes."""
    weights = {trial.id: 10.0 if place < 8 else 1.0 for place, trial in enumerate(PLAN.trials)}
    rules = Composition(8, weights=weights)
    assert rules.deal(rules.passes(Engine.FUSED, PLAN.trials), 2) == [[0], [1, 2]]


def test_plan_counts_workers(capsys: pytest.CaptureFixture[str]) -> None:
    """`plan --workers` says which worker gets how many passes."""
    assert main(["plan", "small", "--profile", "cpu", "--workers", "2", "--width", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["Passes: 2 passes of 1 trial.", "worker 1: 1 pass; worker 2: 1 pass."]
