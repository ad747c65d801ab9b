"""Tests of the keys of trainings and answers in the cache."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.rehearsal import RehearsalAnswers, RehearsalRow
from harness.core.settings import Quantization, Settings
from harness.core.suite import Message
from tests.support.fake_workers import SETUP, A


def answers(word: str = "Answer", quantization: Quantization = Quantization.NF4) -> RehearsalAnswers:
    asked = (Message("user", f"Question {n}?") for n in range(9))
    rows = (RehearsalRow((each, Message("assistant", f"{word} to {each.content}")), 20) for each in asked)
    return RehearsalAnswers(quantization, tuple(rows), {})


WITH_ROWS = replace(SETUP, rehearsal=(answers(),))
REHEARSED = replace(A.settings, rehearsal=3)


def test_trainings_of_earlier_versions_are_found_again() -> None:
    """Without rehearsal, a training and the base model's answers have the keys that they had before it existed."""
    assert SETUP.training_id(A.settings, 0) == WITH_ROWS.training_id(A.settings, 0) == "bc5818887fdb1f89"
    assert SETUP.base_id(Quantization.NF4) == "dff337a83b3954cd"
    assert A.id == "f6c6307c3497"


def test_a_training_depends_on_its_rehearsal_rows() -> None:
    """The key of a training changes with the base model's answers that it is trained on, and with no others."""
    own = WITH_ROWS.training_id(REHEARSED, 0)
    assert replace(SETUP, rehearsal=(answers("Reply"),)).training_id(REHEARSED, 0) != own
    unused = WITH_ROWS.rehearsal_rows(replace(REHEARSED, rehearsal=9), 0)[-1]
    fewer = replace(answers(), rows=tuple(row for row in answers().rows if row != unused))
    assert replace(SETUP, rehearsal=(fewer,)).training_id(REHEARSED, 0) == own


def test_rehearsal_rows_belong_to_a_quantisation() -> None:
    """A trial draws from the answers of the base model in its own quantisation, and has no key before they exist."""
    other = replace(SETUP, rehearsal=(answers(quantization=Quantization.NONE),))
    assert not other.can_rehearse(REHEARSED)
    assert other.can_rehearse(A.settings)
    assert other.can_rehearse(replace(REHEARSED, quantization=Quantization.NONE))
    with pytest.raises(ValueError, match="do not exist yet"):
        other.training_id(REHEARSED, 0)


def test_tokens_of_the_first_version_leave_keys_as_they_are() -> None:
    """Keys depend on the tokens' key only if it is not empty; the quantised base never depends on it."""
    other = replace(SETUP, tokens="0123")
    settings = Settings()
    assert other.training_id(settings, 0) != SETUP.training_id(settings, 0)
    assert other.base_id(Quantization.NF4) != SETUP.base_id(Quantization.NF4)
    assert other.saved_base(Quantization.NF4) == SETUP.saved_base(Quantization.NF4)
    assert replace(other, tokens="").training_id(settings, 0) == SETUP.training_id(settings, 0)
