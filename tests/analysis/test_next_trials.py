"""Tests of the trials that are proposed after a run, from constructed results of small grids."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.next_trials import MOST, NextTrial, next_steps
from harness.core.rehearsal import Rehearsal, RehearsalAnswers, RehearsalRow
from harness.core.run_results import LossVerdict, Results
from harness.core.settings import Quantization, Settings
from harness.core.suite import Message
from tests.support.synthetic_runs import training
from tests.support.tried_grids import ROWS, Tried, results

FEW = 8
"""A quarter of the training rows, rounded up."""
LOW, MIDDLE, HIGH = (Settings(rate, rank=8, epochs=6.0).resolved() for rate in (1e-4, 1e-3, 1e-2))


def proposed(made: Results) -> list[Settings]:
    return [trial.settings for trial in next_steps(made).trials]


def reasons(made: Results) -> str:
    return " ".join(trial.reason for trial in next_steps(made).trials)


# --- rehearsal ---------------------------------------------------------------------------------------------------


def test_a_good_variant_that_forgets_much_gets_rehearsal() -> None:
    """A variant that loses much gets a few rehearsal rows, and more of them with twice the rate or the epochs."""
    made = results(Tried(LOW, 10), Tried(HIGH, 36, lost=20))
    some = [replace(HIGH, rehearsal=rows) for rows in (ROWS // 2, ROWS)]
    assert proposed(made) == [
        replace(HIGH, rehearsal=FEW),
        *(replace(each, learning_rate=2e-2) for each in some),
        replace(LOW, learning_rate=1e-3),
        replace(some[0], epochs=12.0),
    ]
    assert "passes 90% of the generalise cases, with 33.3 points of what the base passes lost" in reasons(made)


def test_rehearsal_alone_for_a_variant_that_has_learned_nearly_all() -> None:
    """A variant that passes nearly all cases gets rehearsal with its own rate and epochs."""
    made = results(Tried(LOW, 10), Tried(HIGH, 39, lost=20))
    assert [each for each in proposed(made) if each.rehearsal] == [
        replace(HIGH, rehearsal=rows) for rows in (FEW, ROWS // 2, ROWS)
    ]


def test_rehearsal_without_a_rate_that_diverged() -> None:
    """If training with a slightly higher rate diverged, rehearsal comes with the variant's own rate."""
    made = results(Tried(HIGH, 36, lost=20), Tried(replace(HIGH, learning_rate=2e-2), diverged=True))
    assert proposed(made)[:3] == [replace(HIGH, rehearsal=rows) for rows in (FEW, ROWS // 2, ROWS)]


def test_rehearsal_without_epochs_that_teach_nothing() -> None:
    """If the timeline shows that learning had ended, rehearsal comes without more epochs."""
    made = results(Tried(HIGH, 36, lost=20, enough=3))
    assert replace(HIGH, epochs=3.0) in proposed(made)
    assert max(each.epochs for each in proposed(made)) == HIGH.epochs


def test_reasons_name_what_was_lost_of_the_avoid_cases() -> None:
    """The reason for a trial also names a large loss among the `avoid` cases, which is hidden among the others."""
    made = results(Tried(LOW, 10), Tried(HIGH, 36, lost=20, did=6), avoid=12)
    assert "36.1 points of what the base passes lost and 50 of the avoid cases alone" in reasons(made)


def test_rehearsal_that_was_too_little_is_doubled() -> None:
    """If a variant with rehearsal still loses much, twice its rehearsal rows are proposed."""
    made = results(Tried(HIGH, 36, lost=30), Tried(replace(HIGH, rehearsal=60), 36, lost=20))
    assert proposed(made)[0] == replace(HIGH, rehearsal=120)


def test_rehearsal_that_suffices_is_not_raised() -> None:
    """If the same settings with rehearsal keep enough, no more rehearsal is proposed for those without."""
    made = results(Tried(HIGH, 38, lost=30), Tried(replace(HIGH, rehearsal=60), 30))
    assert not [each for each in proposed(made) if each.rehearsal > 60]


def test_a_variant_that_keeps_enough_gets_no_rehearsal() -> None:
    """If the best variant is shown to lose less than the margin, no rehearsal is proposed."""
    assert not [each for each in proposed(results(Tried(LOW, 10), Tried(HIGH, 36))) if each.rehearsal]


def test_the_held_out_loss_counts() -> None:
    """If the confirmation sees a large loss of a variant that seemed to keep enough, rehearsal is proposed."""
    made = results(Tried(HIGH, 36), held_out=40, again={"passed": 36, "lost": 16})
    assert made.choice.variant
    assert proposed(made)[0] == replace(HIGH, rehearsal=FEW)
    assert "40 points of what the base passes lost on held-out cases" in reasons(made)


def test_no_more_rehearsal_than_there_are_rows() -> None:
    """At most as many rehearsal rows are proposed as the base model's answers made in this run."""
    made = results(Tried(replace(HIGH, rehearsal=60), 36, lost=20))
    rows = tuple(RehearsalRow((Message("user", str(n)), Message("assistant", "yes")), 9) for n in range(80))
    rehearsal = Rehearsal(tuple(str(n) for n in range(80)), 0, (RehearsalAnswers(Quantization.NF4, rows, {}),))
    made = replace(made, run=replace(made.run, rehearsal=rehearsal))
    assert proposed(made)[0].rehearsal == 80


def test_the_first_rehearsal_takes_what_there_is() -> None:
    """If the base model's good answers are fewer than the rows that are wanted, all of them are proposed, once."""
    made = results(Tried(HIGH, 36, lost=20), Tried(replace(LOW, rehearsal=10), 10))
    rows = tuple(RehearsalRow((Message("user", str(n)), Message("assistant", "yes")), 9) for n in range(20))
    rehearsal = Rehearsal(tuple(str(n) for n in range(20)), 0, (RehearsalAnswers(Quantization.NF4, rows, {}),))
    made = replace(made, run=replace(made.run, rehearsal=rehearsal))
    assert [each.rehearsal for each in proposed(made) if each.learning_rate > HIGH.learning_rate] == [ROWS // 2, 20]


def test_rehearsal_between_two_numbers_of_rows() -> None:
    """If rehearsal takes back part of the gain and most of the loss, a number of rows between the two is proposed."""
    made = results(Tried(HIGH, 38, lost=30), Tried(replace(HIGH, rehearsal=60), 30, lost=3))
    assert replace(HIGH, rehearsal=30) in proposed(made)
    assert "Try a number of rehearsal rows between" in reasons(made)


@pytest.mark.parametrize(("lost", "shown"), [(0, True), (5, False)])
def test_a_loss_that_may_exceed_the_margin_is_called_an_estimate(lost: int, shown: bool) -> None:
    """The reason for a value between two says if the cases do not show that the smaller loss is within the margin."""
    made = results(Tried(HIGH, 38, lost=30), Tried(replace(HIGH, rehearsal=60), 30, lost=lost))
    keeper = next(v for v in made.variants if v.settings and v.settings.rehearsal)
    assert keeper.loss
    assert (keeper.loss.verdict is LossVerdict.KEEPS) is shown
    assert ("no more than the margin of 15 points." in reasons(made)) is shown
    assert ("15 points, but these cases do not show it." in reasons(made)) is not shown


def test_close_numbers_of_rows_bracket_nothing() -> None:
    """No number of rehearsal rows is proposed between two that differ by few of them."""
    made = results(Tried(HIGH, 38, lost=30), Tried(replace(HIGH, rehearsal=10), 30, lost=3))
    assert "rehearsal rows between" not in reasons(made)


# --- learning rates ----------------------------------------------------------------------------------------------


def test_between_two_rates_of_which_one_learns_and_one_keeps() -> None:
    """If the higher rate learns more, and only the lower keeps to the margin, their geometric mean is proposed."""
    made = results(Tried(LOW, 20), Tried(MIDDLE, 36, lost=20))
    found = [each for each in proposed(made) if not each.rehearsal]
    assert found == [replace(LOW, learning_rate=3.2e-4)]
    assert "variant 0" in reasons(made)
    assert "variant 1" in reasons(made)


def test_only_neighbouring_rates_bracket() -> None:
    """Only rates next to each other bracket a better one: a third one between them has been tried."""
    made = results(Tried(LOW, 10), Tried(MIDDLE, 30), Tried(HIGH, 36, lost=20))
    assert replace(MIDDLE, learning_rate=3.2e-3) in proposed(made)
    assert replace(LOW, learning_rate=3.2e-4) not in proposed(made)


def test_rates_of_other_variants_bracket_nothing() -> None:
    """Two variants that differ in more than the learning rate bracket no rate."""
    made = results(Tried(LOW, 20), Tried(replace(MIDDLE, rank=2, alpha=4), 36, lost=20))
    assert "between theirs" not in reasons(made)


def test_rates_on_one_side_of_the_margin_and_close_or_equal_ones_bracket_nothing() -> None:
    """No rate is proposed between two that both lose too much, are close, or learn the same."""
    assert "between theirs" not in reasons(results(Tried(LOW, 20, lost=10), Tried(MIDDLE, 36, lost=30)))
    close = replace(LOW, learning_rate=1.2e-4)
    assert "between theirs" not in reasons(results(Tried(LOW, 20), Tried(close, 36, lost=20)))
    assert "between theirs" not in reasons(results(Tried(LOW, 36), Tried(MIDDLE, 36, lost=20)))


def test_a_rate_below_the_lowest() -> None:
    """If the best variant forgets much and has the lowest rate, a third of it is proposed."""
    made = results(Tried(MIDDLE, 36, lost=20))
    assert replace(MIDDLE, learning_rate=3.3e-4) in proposed(made)


def test_a_rate_above_the_highest() -> None:
    """If the best variant forgets little, has the highest rate and does not pass nearly all, thrice it is proposed.

    A single rate has no direction, so that nothing is proposed for it.
    """
    assert proposed(results(Tried(LOW, 5), Tried(MIDDLE, 20))) == [replace(MIDDLE, learning_rate=3e-3)]
    assert proposed(results(Tried(LOW, 5), Tried(MIDDLE, 40))) == []
    assert proposed(results(Tried(MIDDLE, 20))) == []


# --- epochs ------------------------------------------------------------------------------------------------------


def test_fewer_epochs_where_learning_had_ended() -> None:
    """If the timeline reaches its best quality before the last epoch, that number of epochs is proposed."""
    made = results(Tried(MIDDLE, 40, enough=3))
    assert proposed(made) == [replace(MIDDLE, epochs=3.0)]
    assert "After epoch 3 of 6" in reasons(made)


def test_learning_until_the_end_keeps_the_epochs() -> None:
    """If a variant learns until its last epoch, fewer epochs are not proposed."""
    assert proposed(results(Tried(MIDDLE, 40, enough=6))) == []


# --- all rules ---------------------------------------------------------------------------------------------------


def test_what_was_tried_is_not_proposed() -> None:
    """Settings that the grid of the run has are not proposed, whether their training finished or not."""
    first = results(Tried(LOW, 20), Tried(MIDDLE, 36, lost=20))
    known = [Tried(settings) for settings in proposed(first)]
    again = results(Tried(LOW, 20), Tried(MIDDLE, 36, lost=20), *known)
    assert known
    assert not set(proposed(again)) & {each.settings for each in known}


def test_few_trials_with_different_names() -> None:
    """At most five trials are proposed, with different names and different settings."""
    grid = [
        Tried(replace(settings, rank=rank, alpha=2 * rank), passed, lost)
        for rank in (2, 8, 16)
        for settings, passed, lost in ((LOW, 20, 0), (MIDDLE, 36, 20), (HIGH, 36, 30))
    ]
    trials: tuple[NextTrial, ...] = next_steps(results(*grid)).trials
    assert 1 < len(trials) <= MOST
    assert len({trial.name for trial in trials}) == len({trial.settings for trial in trials}) == len(trials)


def test_random_weights_speak_for_nothing() -> None:
    """After a run of a model with random weights, nothing is proposed."""
    made = results(Tried(LOW, 20), Tried(MIDDLE, 36, lost=20))
    shape = replace(made, run=replace(made.run, model=replace(made.run.model, shape_only=True)))
    assert next_steps(made).any
    assert not next_steps(shape).any


def test_a_run_without_trials_speaks_for_nothing() -> None:
    """If no variant finished, no trial is proposed, and nothing fails."""
    assert next_steps(results()).trials == ()


@pytest.mark.parametrize("toy", [True, False])
def test_hardly_trained_variants_get_more_training(toy: bool) -> None:
    """If no variant learned and the loss hardly fell, a higher rate and more epochs are proposed."""
    made = results(Tried(LOW), Tried(MIDDLE), toy=toy, trained=training(speed=0.001))
    assert proposed(made) == [replace(MIDDLE, learning_rate=3e-3), replace(MIDDLE, epochs=12.0)]


def test_a_toy_that_cannot_learn_gets_no_trials() -> None:
    """If the toy model learned nothing although the loss fell, no trial is proposed."""
    assert proposed(results(Tried(LOW), Tried(MIDDLE), toy=True)) == []
