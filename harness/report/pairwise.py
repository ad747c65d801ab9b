"""Differences in pass rate between every two variants, with confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis import statistics
from harness.core.run_results import Results
from harness.core.suite import Role
from harness.report import formatting
from harness.report.most_telling import most_telling
from harness.report.pass_rates import RoleScores, ScoresByRole, shared_cases

MOST = 24
"""Largest number of variants in the table."""


@dataclass(frozen=True)
class Gap:
    """Difference in the pass rate on the objective: the row's variant minus the column's, in percentage points."""

    text: str
    verdict: str
    """`better` or `worse`, or `unclear` if the 95% interval includes 0."""
    hint: str


@dataclass(frozen=True)
class Pairwise:
    """The table that compares every variant (rows) with every other variant (columns)."""

    names: tuple[tuple[int, str], ...]
    rows: tuple[tuple[Gap | None, ...], ...]
    unclear: int
    """The number of pairs whose difference is unclear."""
    pairs: int
    left_out: int = 0
    """The number of variants with scores that the table leaves out, because there are too many."""


def pairwise(results: Results, scores: ScoresByRole) -> Pairwise | None:
    """Return the table, or None if fewer than two variants have scored answers."""
    objective = results.choice.objective
    scored = [(n, v) for n, v in enumerate(results.variants, 1) if _has_scores(scores, v.name, objective)]
    known = [(n, v.name) for n, v in most_telling(results, scored, MOST)]
    if len(known) < 2:
        return None
    found = {
        (a, b): _difference(scores[b, objective], scores[a, objective])
        for row, (_, a) in enumerate(known)
        for _, b in known[:row]
    }
    both = found | {(b, a): _negated(difference) for (a, b), difference in found.items()}
    shown = tuple(tuple(_gap(both[a, b]) if a != b else None for _, b in known) for _, a in known)
    unclear = sum(_gap(difference).verdict == "unclear" for difference in found.values())
    return Pairwise(tuple(known), shown, unclear, len(found), len(scored) - len(known))


def against(scores: ScoresByRole, objective: Role, before: str, after: str) -> Gap | None:
    """Return the difference of the variant `after` from the variant `before`; None if one of them has no scores."""
    if not (_has_scores(scores, before, objective) and _has_scores(scores, after, objective)):
        return None
    return _gap(_difference(scores[before, objective], scores[after, objective]))


def _has_scores(scores: ScoresByRole, name: str, objective: Role) -> bool:
    own = scores.get((name, objective))
    return bool(own and own.cases)


def _difference(before: RoleScores, after: RoleScores) -> statistics.Interval | None:
    """Compare two variants on the cases for which both have scores. The interval covers both cases and seeds."""
    common = shared_cases((before, after))
    if not common:
        return None
    old, new = before.on(common), after.on(common)
    return statistics.difference(old.scores, new.scores, old.groups)


def _negated(found: statistics.Interval | None) -> statistics.Interval | None:
    return statistics.Interval(-found.value, -found.high, -found.low, found.cases) if found else None


def _gap(found: statistics.Interval | None) -> Gap:
    if found is None:
        return Gap(formatting.ABSENT, "unclear", "no case in common")
    verdict = "better" if found.low > 0 else "worse" if found.high < 0 else "unclear"
    hint = f"{100 * found.low:+.0f} to {100 * found.high:+.0f} points"
    return Gap(f"{100 * found.value + 0.0:+.0f}", verdict, hint)
