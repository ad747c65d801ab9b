"""Pass rates with their intervals, and how likely references became: what is drawn from samples, not from outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from harness.analysis import statistics
from harness.analysis.score_table import ScoreTable, score_tables
from harness.analysis.statistics import Scores
from harness.core.results import Results
from harness.core.scores import Sample
from harness.core.suite import Case, Role


@dataclass(frozen=True)
class Span:
    """The 95% interval of a pass rate, over other cases and other training seeds, as shares."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.low:.0f}–{100 * self.high:.0f}"


@dataclass(frozen=True)
class Marks:
    """Shares passed by one variant (or the base) on one role's cases that have a score under every one of its seeds."""

    cases: tuple[str, ...]
    groups: tuple[str, ...]
    scores: Scores
    """`(seeds, cases)`."""

    @property
    def span(self) -> Span | None:
        if not self.scores.size:
            return None
        found = statistics.rate(self.scores, self.groups)
        return Span(found.low, found.high)


Table = dict[tuple[str, Role], Marks]
"""By variant (`base` among them) and role."""


def marks(results: Results, samples: Sequence[Sample]) -> Table:
    """Return the marks of every variant that has samples, without void cases."""
    suite = results.run.suite
    by_role = {role: [c for c in suite.cases if c.role is role and c.id not in results.void] for role in Role}
    tables = score_tables(samples, suite.reducer)
    return {(name, role): _of(cases, table) for name, table in tables.items() for role, cases in by_role.items()}


def _of(asked: Sequence[Case], table: ScoreTable) -> Marks:
    groups = {case.id: case.group for case in asked}
    whole = table.complete(groups, table.seeds)
    return Marks(tuple(whole), tuple(groups[case] for case in whole), table.scores(whole, table.seeds))


def reference_losses(results: Results, role: Role) -> dict[str, float]:
    """Nats per token of the references of one role's counted cases, by variant: lower where they became likelier."""
    asked = {case.id for case in results.run.suite.cases if case.role is role and case.id not in results.void}
    totals: dict[str, list[tuple[float, int]]] = {}
    for sample in results.samples:
        found = sample.answer.reference
        if sample.case in asked and found and found.tokens and isfinite(found.total):
            totals.setdefault(sample.variant, []).append((found.total, found.tokens))
    return {name: -sum(t for t, _ in own) / sum(n for _, n in own) for name, own in totals.items()}
