"""Pass rates with confidence intervals, and mean losses of reference answers, computed from the samples of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from harness.analysis import statistics
from harness.analysis.score_table import ScoreTable, score_tables
from harness.analysis.statistics import Scores
from harness.core.run_results import Results
from harness.core.scores import Sample
from harness.core.suite import Case, Role


@dataclass(frozen=True)
class Span:
    """The 95% confidence interval of a pass rate, as shares. It covers the choice of cases and of training seeds."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.low:.0f}–{100 * self.high:.0f}"


@dataclass(frozen=True)
class RoleScores:
    """Scores of one variant, or of the base model, on the cases of one role.

    Only cases with a score under every seed of the variant are included.
    """

    cases: tuple[str, ...]
    groups: tuple[str, ...]
    scores: Scores
    """`(seeds, cases)`: 1 where the case passed, 0 where it failed, or the share of its repeats that passed."""

    @property
    def span(self) -> Span | None:
        """The 95% confidence interval of the pass rate; None if there are no scores."""
        if not self.scores.size:
            return None
        found = statistics.rate(self.scores, self.groups)
        return Span(found.low, found.high)

    def on(self, cases: Sequence[str]) -> RoleScores:
        """Return the scores on these cases, each of which must be one of `self.cases`."""
        at = {case: place for place, case in enumerate(self.cases)}
        places = [at[case] for case in cases]
        return RoleScores(tuple(cases), tuple(self.groups[place] for place in places), self.scores[:, places])


def shared_cases(scores: Iterable[RoleScores]) -> list[str]:
    """Return the cases that all of these scores include, in the order of the first."""
    first, *rest = (each.cases for each in scores)
    others = [frozenset(other) for other in rest]
    return [case for case in first if all(case in other for other in others)]


ScoresByRole = dict[tuple[str, Role], RoleScores]
"""Scores by role and by variant name, which is `base` for the base model."""


def scores_by_role(results: Results, samples: Sequence[Sample]) -> ScoresByRole:
    """Return the scores of every variant that has samples, and of the base model."""
    return by_role(results, score_tables(samples, results.run.suite.reducer))


def by_role(results: Results, tables: Mapping[str, ScoreTable]) -> ScoresByRole:
    """Return the scores in these tables, which are those of the variants and of the base model."""
    suite = results.run.suite
    by_role = {role: [c for c in suite.cases if c.role is role] for role in Role}
    return {
        (name, role): _role_scores(cases, table) for name, table in tables.items() for role, cases in by_role.items()
    }


def _role_scores(cases: Sequence[Case], table: ScoreTable) -> RoleScores:
    groups = {case.id: case.group for case in cases}
    whole = table.complete(groups, table.seeds)
    return RoleScores(tuple(whole), tuple(groups[case] for case in whole), table.scores(whole, table.seeds))


def reference_losses(results: Results, role: Role) -> dict[str, float]:
    """Return, for each variant, the mean loss on the reference answers of one role's cases, in nats per token.

    A lower loss means that the model finds the references more likely.
    """
    cases = {case.id for case in results.run.suite.cases if case.role is role}
    totals: dict[str, list[tuple[float, int]]] = {}
    for sample in results.samples:
        found = sample.answer.reference
        if sample.case in cases and found and found.tokens and isfinite(found.total):
            totals.setdefault(sample.variant, []).append((found.total, found.tokens))
    return {name: -sum(t for t, _ in own) / sum(n for _, n in own) for name, own in totals.items()}
