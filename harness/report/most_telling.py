"""Which variants a chart or a table shows if there are too many for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.run_results import Outcome, Results

Numbered = tuple[int, Outcome]
"""A variant with its number in the grid."""


def most_telling(results: Results, variants: Sequence[Numbered], most: int) -> list[Numbered]:
    """Return at most `most` of the variants in their order: the chosen one, and those that pass most of the objective.

    Of equal ones, the first in the grid are kept.
    """
    kept = sorted(variants, key=lambda each: (each[1].name != results.choice.variant, -_rate(results, each[1])))[:most]
    return sorted(kept, key=lambda each: each[0])


def _rate(results: Results, outcome: Outcome) -> float:
    found = outcome.rates.get(results.choice.objective)
    return (found.value or 0.0) if found else 0.0
