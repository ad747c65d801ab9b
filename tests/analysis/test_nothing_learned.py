"""Tests of the cause that is given if no variant learned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.next_trials import next_steps
from harness.analysis.nothing_learned import Cause
from harness.core.run_results import Results
from harness.core.scores import Rate
from harness.core.settings import Settings
from harness.core.suite import Role
from harness.core.training_outcome import Training
from tests.support.synthetic_runs import training
from tests.support.tried_grids import ROWS, Tried, results, row

ONE = Settings(1e-3).resolved()
LEARN = 25


def cause(made: Results) -> tuple[Cause | None, str]:
    nothing = next_steps(made).nothing
    return (nothing.cause, f"{nothing.reason} {nothing.command}") if nothing else (None, "")


def test_the_toy_failed_where_the_rows_hold_the_answers() -> None:
    """If the toy learned none of the rows that the cases ask, the toy is named, and the command for a real model."""
    found, said = cause(results(Tried(ONE), learn=LEARN, seeds=(0,), toy=True))
    assert found is Cause.TOY
    assert "0 of 25 learn cases" in said
    assert "The toy model failed, not the suite" in said
    assert said.endswith("harness run suites/workshop --grid quick --model smollm2")


def test_the_suite_failed_where_no_row_has_the_questions() -> None:
    """If most `learn` cases ask what no training row asks, the suite is the cause, on any model."""
    for toy in (True, False):
        made = results(Tried(ONE), learn=LEARN, toy=toy, rows=[row(n, prompt="Colour {}, please") for n in range(ROWS)])
        found, said = cause(made)
        assert found is Cause.SUITE
        assert f"{LEARN} ask what no training row asks (row 0, row 1, row 2 and {LEARN - 3} more)" in said
        assert said.endswith("harness validate suites/workshop")


def test_the_suite_failed_where_the_rows_answers_fail() -> None:
    """If the training rows' own answers fail most `learn` cases, the suite is the cause."""
    found, said = cause(results(Tried(ONE), learn=LEARN, rows=[row(n, "wrong") for n in range(ROWS)]))
    assert found is Cause.SUITE
    assert f"{LEARN} fail even with the answer of the training row" in said


@pytest.mark.parametrize("trained", [training(speed=0.001), training(steps=1)], ids=["a low rate", "one step"])
def test_training_that_hardly_changed_the_model(trained: Training) -> None:
    """If the training loss hardly fell, too little training is the cause, and neither suite nor toy are blamed."""
    found, said = cause(results(Tried(ONE), learn=LEARN, toy=True, trained=trained))
    assert found is Cause.TRAINING
    assert "hardly fell" in said


def test_a_toy_that_learned_by_heart_failed() -> None:
    """If the toy learned the rows, but none of the same questions in other words, the toy is the cause."""
    found, said = cause(results(Tried(ONE, learned=24), learn=LEARN, seeds=(0,), toy=True))
    assert found is Cause.TOY
    assert "learned the rows (24 of 25 learn cases)" in said
    assert "no more generalise cases than before (0 of 40 generalise cases)" in said


def test_a_real_model_that_learned_by_heart_is_not_blamed() -> None:
    """If a real model learned the rows only, no cause is given: other settings may generalise."""
    assert cause(results(Tried(ONE, learned=24), learn=LEARN)) == (None, "")


def test_a_real_model_that_learned_nothing() -> None:
    """If a real model learned nothing although its loss fell, the reader is sent to the answers."""
    found, said = cause(results(Tried(ONE), learn=LEARN))
    assert found is Cause.UNKNOWN
    assert "Read some of the answers" in said


def test_one_variant_that_learned_suffices() -> None:
    """If one variant learned, no cause is given."""
    assert cause(results(Tried(ONE), Tried(Settings(2e-3).resolved(), 20), learn=LEARN, toy=True)) == (None, "")


def test_nothing_was_left_to_learn() -> None:
    """If the base model passes the cases already, no cause is given: there was nothing to learn."""
    made = results(Tried(ONE), learn=LEARN, toy=True)
    for roles in ([Role.GENERALISE], [Role.LEARN]):
        base = replace(made.base, rates=made.base.rates | dict.fromkeys(roles, Rate(9, 9)))
        assert cause(replace(made, base=base)) == (None, "")
