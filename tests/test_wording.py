"""Counts, lists and lengths of time in words."""

from __future__ import annotations

import pytest

from harness.wording import duration, listed, one, plural


@pytest.mark.parametrize(
    ("words", "most", "said"),
    [
        ("", None, ""),
        ("a", 4, "a"),
        ("ab", 4, "a and b"),
        ("abcd", 4, "a, b, c and d"),
        ("abcde", 4, "a, b, c, d and 1 more"),
        ("abcdefg", None, "a, b, c, d, e, f and g"),
    ],
)
def test_lists(words: str, most: int | None, said: str) -> None:
    """The last of several follows `and`; what is too much for a sentence is counted."""
    assert listed(words, most) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ((0.04,), "0.0 s"),
        ((9.94,), "9.9 s"),
        ((9.96,), "10 s"),
        ((89,), "89 s"),
        ((90,), "1.5 min"),
        ((5399,), "90 min"),
        ((5400,), "1.5 h"),
        ((86400,), "24 h"),
        ((5, 28), "5.0-28 s"),
        ((30, 120), "0.5-2.0 min"),
        ((40, 12240), "0.0-3.4 h"),
    ],
)
def test_lengths_of_time(seconds: tuple[float, ...], said: str) -> None:
    """Two digits, in the unit in which the upper figure is read."""
    assert duration(*seconds) == said


def test_counts() -> None:
    """One has no plural, and thousands are grouped."""
    assert [plural(1, "case"), plural(1200, "case"), plural(0, "case is", "cases are")] == [
        "1 case",
        "1,200 cases",
        "0 cases are",
    ]


@pytest.mark.parametrize(
    "said",
    [
        "a Tesla T4",
        "an NVIDIA L4",
        "an AMD EPYC (2 cores)",
        "an Apple M4",
        "a GPU",
        "an H100",
        "an Intel(R) Xeon(R)",
        "a T4",
    ],
)
def test_a_device_has_its_article(said: str) -> None:
    """By how its name is said: letter by letter where it is all capitals."""
    assert one(said.split(maxsplit=1)[1]) == said
