"""Score tables: how often each case passed under each training seed. All figures are computed from them.

A variant (or the base model) has one table. A cell of the table holds the result of one case under one seed. These
rules apply to answers that have no score:

1. A case has no cell for a seed under which none of its answers has a score. With the reducer `mean`, a cell leaves out
   only the repeats without a score. With `all` and `any`, one repeat without a score removes the cell, because it could
   decide the verdict.
2. A rate does not count a missing cell.
3. A difference of two tables counts a case only if each table has a cell of the case for every selected seed. The
   caller selects the seeds: `seeds` are all seeds that gave answers, so that one seed without any score leaves no case
   to compare; `scored_seeds` excludes such a seed.
4. If leaving out an answer could hide a loss, the caller fills the missing cells with failures (`failing`, and
   `failing_rate` for a rate), because the training may be the reason why the answer has no score. Callers do so for
   the loss of a variant (`Loss`), for the gain in the confirmation, for the choice of a variant, and in the gate for
   seeds that diverged or ran out of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import numpy as np

from harness.analysis import reducers
from harness.analysis.statistics import Scores
from harness.core.scores import Rate, Sample
from harness.core.suite import Case, Reducer


@dataclass(frozen=True)
class Cell:
    """One case under one seed: how many of its scored repeats passed, and their mean score."""

    passed: int
    asked: int
    value: float

    @property
    def share(self) -> float:
        """Return the share of the repeats that passed, from 0 to 1."""
        return self.passed / self.asked

    @property
    def verdict(self) -> bool:
        """Return whether at least half of the repeats passed."""
        return self.share >= reducers.HALF


FAILED = Cell(0, 1, 0.0)
Measure = Callable[[Cell], float]
"""A function that returns the figure of a cell to compare: `passed` (share of passed repeats) or `graded` (score)."""


def passed(cell: Cell) -> float:
    return cell.share


def graded(cell: Cell) -> float:
    return cell.value


@dataclass(frozen=True)
class ScoreTable:
    """The scores of one variant (or the base model) by case and seed. The module docstring defines missing cells."""

    seeds: tuple[int, ...] = ()
    """All seeds that gave answers, in the order of the samples."""
    cells: Mapping[str, Mapping[int, Cell]] = field(default_factory=dict)

    @property
    def scored_seeds(self) -> tuple[int, ...]:
        """Return the seeds that have at least one cell, in ascending order."""
        return tuple(sorted({seed for own in self.cells.values() for seed in own}))

    def on(self, cases: Collection[str]) -> ScoreTable:
        """Return a table of these cases only."""
        wanted = frozenset(cases)
        return replace(self, cells={case: own for case, own in self.cells.items() if case in wanted})

    def failing(self, cases: Iterable[str], seeds: Iterable[int]) -> ScoreTable:
        """Return the table with a failed cell in place of each missing cell of these cases and seeds."""
        failed = dict.fromkeys(seeds, FAILED)
        return replace(self, cells={**self.cells, **{case: {**failed, **self.cells.get(case, {})} for case in cases}})

    def rate(self, cases: Iterable[str]) -> Rate:
        """Return the pass rate on these cases, without answers that have no score."""
        cells = [cell for case in cases for cell in self.cells.get(case, {}).values()]
        return Rate(sum(cell.passed for cell in cells), sum(cell.asked for cell in cells))

    def majority(self, case: str) -> bool:
        """Return whether the case passes under more than half of the seeds that have a cell for it."""
        verdicts = [cell.verdict for cell in self.cells.get(case, {}).values()]
        return sum(verdicts) > len(verdicts) / 2

    def complete(self, cases: Iterable[str], seeds: Collection[int]) -> list[str]:
        """Return the cases that have a cell for each of the seeds. Without seeds, return no cases."""
        return [case for case in cases if seeds and all(seed in self.cells.get(case, ()) for seed in seeds)]

    def scores(self, cases: Sequence[str], seeds: Sequence[int], measure: Measure = passed) -> Scores:
        """Return the scores as an array `(seeds, cases)`. The cases must be `complete` for these seeds."""
        table = [[measure(self.cells[case][seed]) for case in cases] for seed in seeds]
        return np.array(table, dtype=np.float64).reshape(len(seeds), len(cases))


def score_table(samples: Sequence[Sample], reducer: Reducer) -> ScoreTable:
    """Build the table of one variant's samples."""
    found: dict[str, dict[int, list[Sample]]] = {}
    for sample in reducers.counting(samples, reducer):
        found.setdefault(sample.case, {}).setdefault(sample.seed, []).append(sample)
    cells = {case: {seed: _cell(same) for seed, same in own.items()} for case, own in found.items()}
    return ScoreTable(tuple(dict.fromkeys(sample.seed for sample in samples)), cells)


def score_tables(samples: Iterable[Sample], reducer: Reducer) -> dict[str, ScoreTable]:
    """Build a table for each variant that has samples, and for the base model under the name `BASE`."""
    by_variant: dict[str, list[Sample]] = {}
    for sample in samples:
        by_variant.setdefault(sample.variant, []).append(sample)
    return {name: score_table(own, reducer) for name, own in by_variant.items()}


def _cell(samples: Sequence[Sample]) -> Cell:
    scores = [sample.score for sample in samples]
    values = [score.value for score in scores if score.value is not None]
    return Cell(sum(score.passed for score in scores), len(scores), fmean(values))


def failing_rate(rate: Rate, asked: int) -> Rate:
    """Return the rate among `asked` answers. Answers that `rate` does not count are taken as failed."""
    return Rate(rate.passed, max(rate.total, asked))


# --- two tables --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Scores of two models on the same cases, `(seeds, cases)` each, and the group of each case."""

    before: Scores
    after: Scores
    groups: tuple[str, ...]


def pair(
    cases: Iterable[Case],
    before: ScoreTable,
    after: ScoreTable,
    *,
    seeds: tuple[Sequence[int], Sequence[int]] | None = None,
    measure: Measure = passed,
) -> Pair | None:
    """Return the scores of the cases that are complete in both tables, or None if there are none.

    Args:
        cases: the candidates, in the order of the result's columns.
        before: the first table.
        after: the second table.
        seeds: the seeds of each table, in the order of the result's rows (rule 3 of the module). By default, these are
            the seeds under which the table has a cell of at least one of these cases.
        measure: the figure of each cell to compare.
    """
    groups = {case.id: case.group for case in cases}
    old, new = seeds or (before.on(groups).scored_seeds, after.on(groups).scored_seeds)
    shared = after.complete(before.complete(groups, old), new)
    if not shared:
        return None
    was, now = before.scores(shared, old, measure), after.scores(shared, new, measure)
    return Pair(was, now, tuple(groups[case] for case in shared))
