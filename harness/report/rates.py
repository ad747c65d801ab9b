"""Pass rates with their intervals, and how likely references became: what is drawn from samples, not from outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from harness import reducers, stats
from harness.records import Case, Results, Role, Sample

if TYPE_CHECKING:
    from harness.stats import Scores


@dataclass(frozen=True)
class Span:
    """The 95% interval of a pass rate, over other cases and other training seeds, as shares."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.low:.0f}–{100 * self.high:.0f}"


@dataclass(frozen=True)
class Marks:
    """What one variant (or the base) scored on one role's cases that count: shares passed, by seed and case."""

    seeds: tuple[int, ...]
    cases: tuple[str, ...]
    groups: tuple[str, ...]
    by: Mapping[tuple[str, int], float]

    @property
    def scores(self) -> Scores:
        """`(seeds, cases)`."""
        import numpy as np

        return np.array([[self.by[case, seed] for case in self.cases] for seed in self.seeds], dtype=np.float64)

    @property
    def span(self) -> Span | None:
        if not self.cases or not self.seeds:
            return None
        found = stats.rate(self.scores, self.groups)
        return Span(found.low, found.high)


Table = dict[tuple[str, Role], Marks]
"""By variant (`base` among them) and role."""


def marks(results: Results, samples: Sequence[Sample]) -> Table:
    """Of every variant that has samples. Void cases and those without a score under some seed are left out."""
    cases = {case.id: case for case in results.run.suite.cases if case.id not in results.void}
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.variant, []).append(sample)
    found: Table = {}
    for name, own in by_name.items():
        seeds = tuple(dict.fromkeys(sample.seed for sample in own))
        shares = reducers.shares(reducers.counting(own, results.run.suite.reducer))
        for role in Role:
            asked = [case for case in cases.values() if case.role is role]
            found[name, role] = _of(asked, seeds, shares)
    return found


def _of(asked: Iterable[Case], seeds: tuple[int, ...], shares: Mapping[tuple[str, int], float]) -> Marks:
    whole = [case for case in asked if all((case.id, seed) in shares for seed in seeds)]
    return Marks(seeds, tuple(c.id for c in whole), tuple(c.group for c in whole), shares)


def reference_losses(results: Results, role: Role) -> dict[str, float]:
    """Nats per token of the references of one role's counted cases, by variant: lower where they became likelier."""
    asked = {case.id for case in results.run.suite.cases if case.role is role and case.id not in results.void}
    totals: dict[str, list[tuple[float, int]]] = {}
    for sample in results.samples:
        found = sample.reference
        if sample.case in asked and found and found.tokens and isfinite(found.total):
            totals.setdefault(sample.variant, []).append((found.total, found.tokens))
    return {name: -sum(t for t, _ in own) / sum(n for _, n in own) for name, own in totals.items()}
