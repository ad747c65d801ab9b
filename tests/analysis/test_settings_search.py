"""Tests of proposals and of which settings mattered, and simulated searches beside grids."""

from __future__ import annotations

import pytest

from harness.analysis.settings_search import Told, importance, proposals
from harness.core.settings import Range, Search, Settings

pytest.importorskip("optuna")
SEARCH = Search(20, {"learning_rate": Range(1e-5, 1e-1, log=True), "rank": Range(2, 64)}, {}, Settings())


def results(count: int) -> list[Told]:
    """Return results in which only the learning rate matters, and in which high rates violate the margin."""
    rates = [10 ** (-5 + 4 * n / (count - 1)) for n in range(count)]
    return [
        Told(Settings(learning_rate=rate, rank=2 + 7 * n % 60, alpha=2 * (2 + 7 * n % 60)), n / count, -1.0)
        for n, rate in enumerate(rates)
    ]


def test_the_same_results_have_the_same_proposals() -> None:
    """Proposals depend on the results, their number and the seed, and on nothing else."""
    known = [each.settings for each in results(12)]
    once, again = (proposals(SEARCH, results(12), known, 2, 0) for _ in range(2))
    assert once == again
    assert len({each.learning_rate for each in once}) == 2
    assert proposals(SEARCH, results(12), known, 2, 1) != once


def test_proposals_have_few_digits_and_stay_within_their_ranges() -> None:
    """A proposed learning rate has two significant digits, a rank is whole, and alpha follows the rank."""
    for each in proposals(SEARCH, results(12), [], 3, 0):
        assert each.learning_rate == float(f"{each.learning_rate:.2g}")
        assert 1e-5 <= each.learning_rate <= 1e-1
        assert 2 <= each.rank <= 64
        assert each.alpha == 2 * each.rank


def test_the_setting_that_matters_is_the_most_important() -> None:
    """Of a learning rate that decides and a rank that does not, the learning rate has the larger share."""
    found = importance(SEARCH, results(20))
    assert found["learning_rate"] > 0.7 > found["rank"]
    assert sum(found.values()) == pytest.approx(1.0)
    assert importance(SEARCH, results(3)) == {}


def test_results_outside_the_ranges_are_not_told() -> None:
    """A row of the grid with settings that the search does not vary has no influence on proposals."""
    other = Told(Settings(learning_rate=5.0), 1.0, -1.0)
    known = [each.settings for each in results(12)]
    assert proposals(SEARCH, [*results(12), other], known, 1, 0) != []
    assert importance(SEARCH, [*results(12), other]) == importance(SEARCH, results(12))
