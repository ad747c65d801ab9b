"""Tests of the comparison of two answers word by word."""

from __future__ import annotations

import pytest

from harness.report.word_diff import word_diff


@pytest.mark.parametrize(
    ("old", "new", "marked", "dropped"),
    [
        ("The sky is blue today.", "The sky is green today.", ["green "], (3,)),
        ("One two three four.", "One two three four. Stay bright!", [], (3,)),
        ("I do not know.", "Paris, of course", [], ()),
        ("same words here", "same words here now", ["now"], ()),
        ("", "anything", [], ()),
        ("x " * 900, "y " * 900, [], ()),
    ],
)
def test_words_that_differ(old: str, new: str, marked: list[str], dropped: tuple[int, ...]) -> None:
    """Words that only the later answer has are marked, and the positions of words that it lacks are given."""
    found = word_diff(old, new)
    assert "".join(piece.text for piece in found.new) == new
    if marked:
        assert [piece.text for piece in found.new if piece.marked] == marked
        assert found.dropped == dropped
