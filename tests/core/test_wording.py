"""Tests of counts, lists and durations in words."""

from __future__ import annotations

import pytest

from harness.core.wording import duration, listed, one, plural


@pytest.mark.parametrize(
    ("words", "most", "expected"),
    [
        ("", None, ""),
        ("a", 4, "a"),
        ("ab", 4, "a and b"),
        ("abcd", 4, "a, b, c and d"),
        ("abcde", 4, "a, b, c, d and 1 more"),
        ("abcdefg", None, "a, b, c, d, e, f and g"),
    ],
)
def test_lists(words: str, most: int | None, expected: str) -> None:
    """A list has `and` before its last word; words beyond the limit are counted."""
    assert listed(words, most) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
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
def test_durations(seconds: tuple[float, ...], expected: str) -> None:
    """A duration is written with two digits, in the unit that suits the upper value."""
    assert duration(*seconds) == expected


def test_counts() -> None:
    """A count of 1 has a singular noun, other counts have a plural, and commas separate thousands."""
    assert [plural(1, "case"), plural(1200, "case"), plural(0, "case is", "cases are")] == [
        "1 case",
        "1,200 cases",
        "0 cases are",
    ]


@pytest.mark.parametrize(
    "phrase",
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
def test_a_device_has_its_article(phrase: str) -> None:
    """A device's article follows the sound of its name; a name in capitals is pronounced letter by letter."""
    assert one(phrase.split(maxsplit=1)[1]) == phrase
