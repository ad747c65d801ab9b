"""Tests of `harness gate`, which compares a run with a baseline and exits with a code for the verdict."""

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
from harness.core.run_results import Verdict
from harness.core.settings import Settings
from harness.core.suite import Assertion
from harness.core.training_outcome import Status
from tests.support import run_pairs, synthetic_runs
from tests.support.run_pairs import CASES, LEARN, NAMED, SEEDS, decided, stored


def test_exit_codes(here: Path) -> None:
    """`harness gate` exits with 0 if nothing became worse, 1 after a regression, and 4 if the runs are not comparable.

    If the verdict is inconclusive, it exits with 0, or with 4 if `--strict` is given. If no baseline is named, it exits
    with 2.
    """
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
    """If a run lacks a variant of the baseline, the error names the variant and a remedy."""
    other = replace(NAMED, name="another", settings=Settings(5e-3))
    stored(run_pairs.results(variant=other), here / "other")
    assert main(["gate", "other", "--baseline", "good"]) == 2
    assert re.search("other lacks variants of the baseline good: default\nRun the", capsys.readouterr().err)


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.FAILED])
def test_an_empty_run_is_an_error(here: Path, status: Status, capsys: pytest.CaptureFixture[str]) -> None:
    """If a run has no finished trial, it can neither be compared with a baseline nor become one."""
    stored(run_pairs.results(status=status), here / "empty")
    assert main(["gate", "empty", "--baseline", "good"]) == 2
    assert "the run in empty is empty: it has no finished trial" in capsys.readouterr().err
    assert main(["bless", "empty"]) == 2
    assert "is empty" in capsys.readouterr().err


def test_the_margin_is_the_baselines(here: Path) -> None:
    """The margin of the baseline's suite applies, even if the later suite has a larger one."""
    lax = synthetic_runs.manifest(synthetic_runs.suite(CASES, margin=100), [NAMED], SEEDS)
    found = run_gate(stored(run_pairs.results(run=lax), here / "lax"), "good")
    assert found.policy.margin == 10


def test_code_judges_again_only_if_allowed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If a changed suite scores with code of its own, the baseline's answers are scored only with --allow-code."""
    by_code = (replace(CASES[0], assertions=(Assertion("python", "judge.py:judge"),)), *CASES[1:])
    stored(run_pairs.results(cases=by_code), here / "coded")
    assert main(["gate", "coded", "--baseline", "good"]) == 2
    assert re.search("runs code: .*judge.py.*\nIf you trust it, pass --allow-code", capsys.readouterr().err)


def test_last_digits_do_not_matter() -> None:
    """If a run on another machine fails a single case under a single seed, the verdict is UNCHANGED."""
    there = replace(synthetic_runs.machine(), device="Another CPU")
    other = run_pairs.results(
        {"learn 3": [2]}, run=synthetic_runs.manifest(synthetic_runs.suite(CASES), [NAMED], SEEDS, on=there)
    )
    found = decided(baseline_of(other, "there"))
    assert found.verdict is Verdict.UNCHANGED
    assert any("Another CPU" in line for line in gate_output.text(found).splitlines())
