"""How often each case passed under each training seed: one table for each variant, from which every figure is computed.

The rule for answers that have no score:

1. A case has no cell for a seed under which none of its answers has a score. Of several repeats only those without a
   score are left out; where the reducer is `all` or `any`, one repeat without a score leaves the cell out, since it
   could decide the verdict.
2. In a rate, a missing cell counts neither as passed nor as asked.
3. In a difference of two tables, a case counts only where both tables have a cell for each of their seeds. The caller
   names the seeds: `seeds` are all seeds that gave answers, so a seed without a single score leaves no case;
   `scored_seeds` leaves such a seed out and compares the others.
4. Where leaving an answer out could hide a loss, the caller fills the missing cells with failures (`failing`, and
   `failing_rate` for a rate): the training may be the reason why the answer has no score. This holds for what a variant
   lost (`Safety`), for the choice of a variant, and in the gate for seeds that diverged or ran out of memory.
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
        """Return whether the repeats pass together."""
        return self.share >= reducers.HALF


FAILED = Cell(0, 1, 0.0)
Measure = Callable[[Cell], float]
"""What of a cell is compared: `passed` or `graded`."""


def passed(cell: Cell) -> float:
    return cell.share


def graded(cell: Cell) -> float:
    return cell.value


@dataclass(frozen=True)
class ScoreTable:
    """The scores of one variant (or the base) by case and seed. The module's docstring says when a cell is missing."""

    seeds: tuple[int, ...] = ()
    """All seeds that gave answers, in the order of the samples."""
    cells: Mapping[str, Mapping[int, Cell]] = field(default_factory=dict)

    @property
    def scored_seeds(self) -> tuple[int, ...]:
        """Return the seeds that have at least one cell, in ascending order."""
        return tuple(sorted({seed for own in self.cells.values() for seed in own}))

    def on(self, cases: Collection[str]) -> ScoreTable:
        """Return the part of the table that is of these cases."""
        wanted = frozenset(cases)
        return replace(self, cells={case: own for case, own in self.cells.items() if case in wanted})

    def failing(self, cases: Iterable[str], seeds: Iterable[int]) -> ScoreTable:
        """Return the table with a failed cell for each of these cases and seeds that has none."""
        failed = dict.fromkeys(seeds, FAILED)
        return replace(self, cells={**self.cells, **{case: {**failed, **self.cells.get(case, {})} for case in cases}})

    def rate(self, cases: Iterable[str]) -> Rate:
        """Return how many answers to these cases passed, of those that have a score."""
        cells = [cell for case in cases for cell in self.cells.get(case, {}).values()]
        return Rate(sum(cell.passed for cell in cells), sum(cell.asked for cell in cells))

    def majority(self, case: str) -> bool:
        """Return whether the case passes under more than half of the seeds that have a cell for it."""
        verdicts = [cell.verdict for cell in self.cells.get(case, {}).values()]
        return sum(verdicts) > len(verdicts) / 2

    def whole(self, cases: Iterable[str], seeds: Collection[int]) -> list[str]:
        """Return the cases that have a cell for each of the seeds; none if there are no seeds."""
        return [case for case in cases if seeds and all(seed in self.cells.get(case, ()) for seed in seeds)]

    def scores(self, cases: Sequence[str], seeds: Sequence[int], measure: Measure = passed) -> Scores:
        """Return `(seeds, cases)`, for cases that are `whole` under these seeds."""
        table = [[measure(self.cells[case][seed]) for case in cases] for seed in seeds]
        return np.array(table, dtype=np.float64).reshape(len(seeds), len(cases))


def score_table(samples: Sequence[Sample], reducer: Reducer) -> ScoreTable:
    """Return the table of one variant's samples."""
    found: dict[str, dict[int, list[Sample]]] = {}
    for sample in reducers.counting(samples, reducer):
        found.setdefault(sample.case, {}).setdefault(sample.seed, []).append(sample)
    cells = {case: {seed: _cell(same) for seed, same in own.items()} for case, own in found.items()}
    return ScoreTable(tuple(dict.fromkeys(sample.seed for sample in samples)), cells)


def score_tables(samples: Iterable[Sample], reducer: Reducer) -> dict[str, ScoreTable]:
    """Return a table for each variant (`base` among them) that has samples."""
    by_variant: dict[str, list[Sample]] = {}
    for sample in samples:
        by_variant.setdefault(sample.variant, []).append(sample)
    return {name: score_table(own, reducer) for name, own in by_variant.items()}


def _cell(samples: Sequence[Sample]) -> Cell:
    scores = [sample.score for sample in samples]
    values = [score.value for score in scores if score.value is not None]
    return Cell(sum(score.passed for score in scores), len(scores), fmean(values))


def failing_rate(rate: Rate, asked: int) -> Rate:
    """Return the rate with the answers that are missing of `asked` counted as failed."""
    return Rate(rate.passed, max(rate.total, asked))


# --- two tables --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Scores of the same cases on two sides, `(seeds, cases)` each, and the cases' groups."""

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
    """Return the scores of the cases that are whole on both sides, or None where no case is.

    Args:
        cases: the candidates, in the order of the result's columns.
        before: the first side.
        after: the second side.
        seeds: the seeds of either side, in the order of the result's rows (rule 3); by default the `scored_seeds` of
            these cases.
        measure: what of each cell is compared.
    """
    groups = {case.id: case.group for case in cases}
    old, new = seeds or (before.on(groups).scored_seeds, after.on(groups).scored_seeds)
    shared = after.whole(before.whole(groups, old), new)
    if not shared:
        return None
    was, now = before.scores(shared, old, measure), after.scores(shared, new, measure)
    return Pair(was, now, tuple(groups[case] for case in shared))
