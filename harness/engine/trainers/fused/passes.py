"""Divides the rows of a round into passes over the base so that the total cost is lowest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

EVEN = 1.25
"""If passes with equally many rows of every trial cost at most this many times the cheapest ones, they are used."""


def divided(owners: Sequence[int], lengths: Sequence[int], *, overhead: int, limit: int) -> list[list[int]]:
    """Divide rows of these lengths and owners (trials) into passes, even ones if they cost little more than `passes`.

    Returns the indices of each pass's rows.
    """
    cheapest = passes(lengths, overhead=overhead, limit=limit)
    even = even_passes(owners, lengths, overhead=overhead, limit=limit)
    if even and padded(even, lengths, overhead) <= EVEN * padded(cheapest, lengths, overhead):
        return even
    return cheapest


def passes(lengths: Sequence[int], *, overhead: int, limit: int) -> list[list[int]]:
    """Divide rows of these lengths into passes, and return the indices of each pass's rows.

    A pass costs `overhead` tokens plus its rows, padded to the longest of them. A pass has at most `limit` padded
    tokens, unless a single row has more. The passes with the shortest rows come first. Dynamic programming over the
    distinct lengths finds the cheapest division of the sorted rows.
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    distinct = sorted(set(lengths))
    counts = [sum(length == each for length in lengths) for each in distinct]
    upto = [0, *accumulate(counts)]
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(distinct) + 1):
        longest = distinct[end - 1]
        costs = [
            (best[start][0] + _cost(upto[end] - upto[start], longest, overhead, limit), start) for start in range(end)
        ]
        best.append(min(costs))
    groups: list[list[int]] = []
    end = len(distinct)
    while end:
        start = best[end][1]
        rows = order[upto[start] : upto[end]]
        pieces = _pieces(len(rows), distinct[end - 1], limit)
        groups = [list(rows[len(rows) * n // pieces : len(rows) * (n + 1) // pieces]) for n in range(pieces)] + groups
        end = start
    return groups


def even_passes(owners: Sequence[int], lengths: Sequence[int], *, overhead: int, limit: int) -> list[list[int]] | None:
    """Divide rows as `passes` does, but each pass has equally many rows of every owner; None if that is impossible.

    An owner is a trial. The rows of such a pass need not be gathered by owner. For wide layers, gathering costs more
    than some padding.
    """
    own = [
        sorted((n for n, one in enumerate(owners) if one == owner), key=lengths.__getitem__) for owner in set(owners)
    ]
    if len({len(rows) for rows in own}) > 1 or max(lengths) * len(own) > limit:
        return None
    ranks = list(zip(*own, strict=True))
    longest = [max(lengths[row] for row in rank) for rank in ranks]
    groups = passes(longest, overhead=overhead // len(own), limit=limit // len(own))
    return [[row for place in group for row in ranks[place]] for group in groups]


def padded(groups: Sequence[Sequence[int]], lengths: Sequence[int], overhead: int) -> int:
    """Return the cost of these passes in tokens: padded rows, plus `overhead` for each pass."""
    return sum(overhead + len(group) * max(lengths[row] for row in group) for group in groups)


def _cost(rows: int, longest: int, overhead: int, limit: int) -> float:
    return _pieces(rows, longest, limit) * overhead + rows * longest


def _pieces(rows: int, longest: int, limit: int) -> int:
    """Return the number of passes that `rows` rows of length `longest` take."""
    fitting = max(1, limit // longest)
    return -(-rows // fitting)
