"""The rows of a step are divided into the cheapest forward passes within a token limit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.trainers.fused.passes import even_passes, padded, passes


@pytest.mark.parametrize(
    ("lengths", "overhead", "expected"),
    [
        ([3, 3, 3], 100, [[0, 1, 2]]),
        ([3, 90, 3], 200, [[0, 2, 1]]),
        ([3, 90, 3], 1, [[0, 2], [1]]),
        ([50, 10, 52, 11, 12], 20, [[1, 3, 4], [0, 2]]),
        ([60, 60, 60], 1, [[0], [1], [2]]),
        ([200], 1, [[0]]),
    ],
)
def test_passes_are_the_cheapest(lengths: list[int], overhead: int, expected: list[list[int]]) -> None:
    """Long rows get their own pass if padding shorter rows to their length costs more, within the token limit."""
    found = passes(lengths, overhead=overhead, limit=300 if overhead >= 100 else 110)
    assert [sorted(group) for group in found] == [sorted(group) for group in expected]


@given(st.integers(1, 4), st.lists(st.integers(1, 40), min_size=1, max_size=6), st.randoms(), st.integers(60, 400))
def test_even_passes_have_as_many_rows_of_every_owner(owners: int, lengths: list[int], rng: Any, limit: int) -> None:
    """Even passes hold each row once and equally many rows of every owner, and respect the token limit."""
    rows = [(owner, length) for owner in range(owners) for length in lengths]
    rng.shuffle(rows)
    of, long = [owner for owner, _ in rows], [length for _, length in rows]
    found = even_passes(of, long, overhead=20, limit=limit)
    if found is None:
        assert owners * max(lengths) > limit
        return
    assert sorted(row for group in found for row in group) == list(range(len(rows)))
    assert all(len(set(Counter(of[row] for row in group).values())) == 1 for group in found)
    assert all({of[row] for row in group} == set(of) for group in found)
    assert all(padded([group], long, 0) <= limit for group in found)


def test_passes_are_not_even_where_numbers_of_rows_differ() -> None:
    """`even_passes` returns None if the trials have different numbers of rows."""
    assert even_passes([0, 0, 1], [5, 5, 5], overhead=1, limit=100) is None
