"""Divide trials into passes of nearly equal size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def even_parts(trials: Sequence[T], most: int) -> list[list[T]]:
    """Divide trials, in their order, into the fewest passes of at most `most` trials; all have nearly the same size.

    If the first passes are done, dividing the remaining trials gives the remaining passes unchanged.
    """
    left, found = list(trials), list[list[T]]()
    while left:
        size = -(-len(left) // -(-len(left) // most))
        found.append(left[:size])
        left = left[size:]
    return found
