"""Tests of the changes of a suite that are proposed after a run."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.next_trials import next_steps
from harness.core.run_results import Finding, Results
from harness.core.settings import Settings
from harness.core.turn_tokens import CutRows, TurnTokens
from tests.support.tried_grids import Tried, results

ONE = Settings(1e-3).resolved()


def said(made: Results) -> str:
    return " ".join(next_steps(made).suite)


def test_a_suite_that_showed_everything_needs_no_change() -> None:
    """After a confirmed choice with enough cases, no change of the suite is proposed."""
    made = results(Tried(ONE, 40), held_out=60, again={"passed": 60, "lost": 0})
    assert made.choice.confirmation
    assert made.choice.confirmation.finding is Finding.CONFIRMED
    assert said(made) == ""


def test_cut_answers_of_the_base_ask_for_more_tokens() -> None:
    """If many `retain` answers of the base model were cut and failed, twice the limit of new tokens is proposed."""
    text = said(results(Tried(ONE, 40), base_passes=40, base_cut=15))
    assert "Raise `decoding.max_new_tokens` in suite.yaml from 32 to 64" in text
    assert "15 of 60 answers of the base model to retain and avoid cases were cut" in text


def test_cut_answers_of_the_best_variant_ask_for_more_tokens() -> None:
    """If many `retain` answers of the best variant were cut and failed, more tokens are proposed."""
    assert "45 of 180 answers of variant 0 to retain and avoid" in said(results(Tried(ONE, 40, cut=15)))


def test_answers_that_never_end_ask_for_longer_rows() -> None:
    """If training rows of the best variant lost their ends, a larger `max_length` is proposed, and not more tokens."""
    made = results(Tried(ONE, 40, cut=15))
    tokens = TurnTokens(2, "</s>", (2,), named=True, behind=0, cuts=(CutRows(ONE.max_length, 30, 6, 5),))
    text = said(replace(made, run=replace(made.run, tokens=tokens)))
    assert (
        f"Raise `max_length` in the grid above {ONE.max_length}, or shorten the training rows: 45 of 180 answers"
        in text
    )
    assert "max_length 512 cuts 6 of 30 training rows; 5 of them lose the end" in text
    assert "max_new_tokens" not in text


def test_few_cut_answers_ask_for_nothing() -> None:
    """If at most 5% of the answers were cut, no other limit is proposed."""
    assert "max_new_tokens" not in said(results(Tried(ONE, 40), base_passes=57, base_cut=3))


def test_a_loss_among_the_avoid_cases_asks_for_rows_against_it() -> None:
    """If the nearest variant loses much of the `avoid` cases alone, training rows against that are proposed."""
    text = said(results(Tried(ONE, 40, did=4), avoid=12))
    assert "Add training rows with questions like the avoid cases, answered as they should be" in text
    assert "on the avoid cases alone, the base passes 12 of 12 cases; the variant breaks 4 of these" in text
    assert "like the avoid cases" not in said(results(Tried(ONE, 40), avoid=12))


def test_a_loss_that_is_not_shown_asks_for_cases() -> None:
    """If it is open whether the best variant loses less than the margin, the number of cases that show it is given."""
    made = results(Tried(ONE, 40, lost=1), retain=12)
    [variant] = made.variants
    assert variant.loss
    assert variant.loss.needed
    assert f"Add about {variant.loss.needed - 12} retain or avoid cases like the 12 that there are" in said(made)


def test_a_loss_beyond_the_margin_asks_for_no_cases() -> None:
    """If the loss that was seen exceeds the margin, no number of cases is proposed, because none would do."""
    assert "retain or avoid cases" not in said(results(Tried(ONE, 40, lost=4), retain=12))


def test_a_suite_without_guarded_cases_gets_some() -> None:
    """If the suite has no `retain` or `avoid` cases, adding some is proposed."""
    assert "Add retain cases" in said(results(Tried(ONE, 40), retain=0))


def test_a_base_that_passes_nothing_gets_other_cases() -> None:
    """If the base model passes no `retain` case, cases that it can pass are proposed."""
    assert "Replace the retain and avoid cases" in said(results(Tried(ONE, 40, lost=60), base_passes=0))


def test_a_choice_without_held_out_cases_needs_some() -> None:
    """If a variant was chosen and no case is held out, holding some out is proposed."""
    assert "`split: confirm`" in said(results(Tried(ONE, 40)))


def test_an_unconfirmed_loss_asks_for_held_out_cases() -> None:
    """If the confirmation cannot show the loss, the number of held-out cases that would do is given."""
    made = results(Tried(ONE, 40), held_out=20, again={"passed": 20, "lost": 2})
    found = made.choice.confirmation
    assert found
    assert found.needed
    assert f"Add about {found.needed - 20} held-out retain or avoid cases (`split: confirm`)" in said(made)


def test_a_gain_within_the_noise_asks_for_cases_of_the_objective() -> None:
    """If the gain is within the noise, the number of cases of the objective that would show it is given."""
    made = results(Tried(ONE, 3))
    change = made.variants[0].changes[made.choice.objective]
    assert change.needed
    assert f"Add about {change.needed - 40} generalise cases like the 40 that there are" in said(made)
