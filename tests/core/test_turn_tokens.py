"""Tests of what is recorded about a model's chat template."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.turn_tokens import CutRows, TurnTokens, token_key

PLAIN = TurnTokens(end=2, end_text="</s>", ends=(2,), named=True, behind=0)


def test_models_without_a_deviation_keep_their_keys() -> None:
    """If rows and answers are those of the first version, the key is empty, so that stored results stay valid."""
    assert PLAIN.key == ""
    assert replace(PLAIN, cuts=(CutRows(8, 3, 1, 1),)).key == ""


@pytest.mark.parametrize("change", [{"named": False}, {"behind": 1}, {"from_row": True}, {"short": True}])
def test_each_deviation_changes_the_key(change: dict[str, object]) -> None:
    """Everything that changes the labels, the prompts or the end of answers changes the key."""
    assert replace(PLAIN, **change).key  # type: ignore[arg-type]


def test_an_unread_tokenizer_has_a_key_of_its_own() -> None:
    """If only the worker can read the tokenizer, results of the first version are not used again."""
    assert token_key(None)
    assert token_key(PLAIN) == ""


def test_cut_rows_are_a_warning_with_a_remedy() -> None:
    """A `max_length` that cuts rows gives one warning with both numbers and a remedy; others give none."""
    cuts = (CutRows(8, 30, 30, 29), CutRows(512, 30, 0, 0))
    (notice,) = replace(PLAIN, cuts=cuts).notices
    assert notice.startswith("Warning: max_length 8 cuts 30 of 30 training rows; 29 of them lose the end of an answer")
    assert "Raise max_length" in notice
