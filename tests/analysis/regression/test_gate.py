"""`harness gate` compares a run with a baseline; its exit code is the verdict."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.regression import gate_output
from harness.analysis.regression.baseline import baseline_of
from harness.analysis.regression.gate import run_gate
from harness.cli import main
from harness.core.engines import Engine
from harness.core.results import Verdict
from harness.core.settings import Settings
from harness.core.suite import Assertion
from harness.core.training import Status
from tests.support import run_pairs, synthetic_runs
from tests.support.run_pairs import CASES, LEARN, NAMED, SEEDS, decided, stored


def test_exit_codes(here: Path) -> None:
    """0 for what is as good, 1 for a regression, 4 for what cannot be compared, and for doubt where that is asked."""
    stored(run_pairs.results({id: [0] for id in LEARN[:6]}, seeds=(0, 1)), here / "doubtful")
    stored(run_pairs.results(seeds=(0, 1)), here / "two")
    other = replace(run_pairs.results(), run=replace(run_pairs.results().run, engine=Engine.FUSED))
    stored(replace(other, run=replace(other.run, model=replace(other.run.model, digest="f" * 16))), here / "llama")
    assert main(["gate", "first", "--baseline", "good"]) == 0
    assert main(["gate", "worse", "--baseline", "good"]) == 1
    assert main(["gate", "llama", "--baseline", "good"]) == 4
    assert main(["gate", "doubtful", "--baseline", "two"]) == 0
    assert main(["gate", "doubtful", "--baseline", "two", "--strict"]) == 4
    assert main(["gate", "first"]) == 2


def test_a_missing_variant_is_an_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that lacks one of the baseline's variants cannot pass for it; the message names it and the way out."""
    other = replace(NAMED, name="another", settings=Settings(5e-3))
    stored(run_pairs.results(variant=other), here / "other")
    assert main(["gate", "other", "--baseline", "good"]) == 2
    assert re.search("other lacks variants of the baseline good: default\nRun the", capsys.readouterr().err)


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.FAILED])
def test_an_empty_run_is_an_error(here: Path, status: Status, capsys: pytest.CaptureFixture[str]) -> None:
    """A run without any finished trial can neither be gated nor blessed."""
    stored(run_pairs.results(status=status), here / "empty")
    assert main(["gate", "empty", "--baseline", "good"]) == 2
    assert "the run in empty is empty: it has no finished trial" in capsys.readouterr().err
    assert main(["bless", "empty"]) == 2
    assert "is empty" in capsys.readouterr().err


def test_the_margin_is_the_baselines(here: Path) -> None:
    """A later suite that allows more loss than the blessed one does not loosen the gate by itself."""
    lax = synthetic_runs.manifest(synthetic_runs.suite(CASES, margin=100), [NAMED], SEEDS)
    found = run_gate(stored(run_pairs.results(run=lax), here / "lax"), "good")
    assert found.policy.margin == 10


def test_code_judges_again_only_if_allowed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A suite that came to judge by code runs none of it on the baseline's answers unless that is allowed."""
    by_code = (replace(CASES[0], assertions=(Assertion("python", "judge.py:judge"),)), *CASES[1:])
    stored(run_pairs.results(cases=by_code), here / "coded")
    assert main(["gate", "coded", "--baseline", "good"]) == 2
    assert re.search("runs code: .*judge.py.*\nIf you trust it, pass --allow-code", capsys.readouterr().err)


def test_last_digits_do_not_matter() -> None:
    """A run on another machine, where one answer in a hundred differs and memory is another, is green."""
    there = replace(synthetic_runs.machine(), device="Another CPU")
    other = run_pairs.results(
        {"learn 3": [2]}, run=synthetic_runs.manifest(synthetic_runs.suite(CASES), [NAMED], SEEDS, on=there)
    )
    found = decided(baseline_of(other, "there"))
    assert found.verdict is Verdict.UNCHANGED
    assert any("Another CPU" in line for line in gate_output.text(found).splitlines())
