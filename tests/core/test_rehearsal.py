"""Which answers become rehearsal rows, and which rows a trial draws."""

from __future__ import annotations

import pytest

from harness.core.answers import Answer
from harness.core.rehearsal import RehearsalAnswers, RehearsalRow, draw
from harness.core.rehearsal_answers import LeftOut, fault, repeats_itself
from harness.core.settings import Quantization, Settings
from harness.core.suite import Message

ROWS = tuple(
    RehearsalRow((Message("user", f"Question {n}?"), Message("assistant", f"Answer {n}.")), 10 + n) for n in range(40)
)


def drawn(number: int, seed: int, **settings: int) -> tuple[RehearsalRow, ...]:
    return draw(ROWS, Settings(rehearsal=number, **settings), seed)  # type: ignore[arg-type]


def test_a_seed_always_draws_the_same_rows() -> None:
    """The same seed draws the same rows from the same answers, in any order of the answers."""
    assert draw(ROWS[::-1], Settings(rehearsal=12), 3) == drawn(12, 3)
    asked = [row.messages[0].content for row in drawn(4, 0)]
    assert asked == ["Question 35?", "Question 4?", "Question 9?", "Question 6?"]


def test_seeds_draw_different_rows() -> None:
    """Each seed draws rows of its own, all different, and together they use most of the pool."""
    each = [drawn(20, seed) for seed in range(5)]
    assert all(len(set(rows)) == 20 for rows in each)
    assert len({frozenset(rows) for rows in each}) == 5
    assert len({row for rows in each for row in rows}) > 35


def test_more_rehearsal_adds_rows() -> None:
    """Under one seed, the rows of a variant with less rehearsal are the first rows of one with more."""
    assert drawn(20, 7)[:8] == drawn(8, 7)


def test_no_rehearsal_draws_no_rows() -> None:
    """With rehearsal 0, no row is drawn."""
    assert drawn(0, 0) == ()


def test_rows_that_would_be_cut_are_not_drawn() -> None:
    """Rows with more tokens than `max_length` are not drawn, since a cut row does not teach the model to stop."""
    assert {row.tokens for row in drawn(40, 0, max_length=19)} == set(range(10, 20))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer("k", "A short answer.", 4, False), None),
        (Answer("k", "", 1, False), LeftOut.EMPTY),
        (Answer("k", " \n ", 1, False), LeftOut.EMPTY),
        (Answer("k", "An answer that goes on and", 64, True), LeftOut.CUT),
        (Answer("k", "I like tea. I like tea. I like tea. I like tea.", 20, False), LeftOut.REPEATS),
    ],
)
def test_answers_that_teach_bad_habits_are_left_out(answer: Answer, reason: LeftOut | None) -> None:
    """An answer is left out if it is empty, cut at the limit of tokens, or repeats itself."""
    assert fault(answer) is reason


@pytest.mark.parametrize(
    "text",
    [
        "no no no",
        "The house is by the sea. The house is by the sea. The house is by the sea.",
        "1 2 3 4 1 2 3 4 1 2 3 4",
    ],
)
def test_repetition_is_found(text: str) -> None:
    """A word three times in a row, or four words that occur three times, are repetition."""
    assert repeats_itself(text)


@pytest.mark.parametrize(
    "text",
    ["", "No, no.", "1. Milk\n2. Eggs\n3. Flour", "It is red, it is blue, and it is green.", "Row, row your boat."],
)
def test_lists_and_refrains_are_no_repetition(text: str) -> None:
    """Lists, and phrases of up to three words that occur several times, are no repetition."""
    assert not repeats_itself(text)


def test_the_words_count_what_was_left_out() -> None:
    """The sentence about the answers names how many were asked, how many are kept, and why the others are not."""
    made = RehearsalAnswers(Quantization.NF4, ROWS, {LeftOut.CUT: 7, LeftOut.REPEATS: 3})
    assert made.words == (
        "the base model answered 50 rehearsal prompts, of which 40 are kept: 7 did not end within 96 tokens and 3 "
        "repeat themselves"
    )
