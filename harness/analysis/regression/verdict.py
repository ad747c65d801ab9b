"""A comparison and a policy to a verdict: has anything become worse, and how do we know?

A variant has REGRESSED if the pass rate of a role is lower by at least `Policy.least` points and its adjusted p-value
at most `Policy.alpha`; or if a case marked `critical`, which passed under every seed, now fails under every seed; or if
it takes more memory or time than the baseline's own repeats leave room for. It is UNCHANGED where every loss is shown
to lie below the suite's margin, and INCONCLUSIVE where it is not. What was really trained may have changed without any
of this: that is listed before, and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev

from harness.analysis import statistics
from harness.core.measurement import Measurement
from harness.core.quantities import MIB
from harness.core.regression import (
    Comparison,
    CostChange,
    Decision,
    Judgement,
    Mismatch,
    Policy,
    Reason,
    RoleChange,
    VariantChange,
)
from harness.core.results import Verdict
from harness.core.units import Unit
from harness.core.wording import plural

SEVERITY = (Verdict.NOT_COMPARABLE, Verdict.REGRESSED, Verdict.INCONCLUSIVE, Verdict.IMPROVED, Verdict.UNCHANGED)
"""Verdicts, the gravest first: the verdict on a run is the first of these that applies to any part of it."""
REPEATS = 3
"""Fewer trainings tell nothing of how far their costs differ by themselves."""
SURE = 0.999
"""How sure a cost's rise has to be."""


def decide(comparison: Comparison, policy: Policy) -> Decision:
    """The verdict on a run: that of its worst variant, or NOT_COMPARABLE where something stands in the way."""
    obstacles = tuple(_obstacles(comparison))
    if obstacles:
        return Decision(Verdict.NOT_COMPARABLE, obstacles, (), policy, comparison)
    judged = tuple(judge(variant, policy) for variant in comparison.variants)
    verdict = most_severe([judgement.verdict for judgement in judged])
    named = [judgement.variant for judgement in judged if judgement.verdict is verdict]
    return Decision(verdict, (f"{verdict}: {', '.join(named)}",), judged, policy, comparison)


def _obstacles(comparison: Comparison) -> Iterator[str]:
    for obstacle in comparison.obstacles:
        yield changed(obstacle)
    if not comparison.variants:
        yield "the two runs have no variant in common"
    elif not any(variant.roles or variant.missing for variant in comparison.variants):
        yield "the two suites have no case in common that was asked alike and counts for this base"


def changed(mismatch: Mismatch) -> str:
    """`learning_rate: 0.001 -> 0.01`."""
    return f"{mismatch.what}: {mismatch.before or 'none'} -> {mismatch.after or 'none'}"


def most_severe(verdicts: Sequence[Verdict]) -> Verdict:
    """UNCHANGED where there are none."""
    return next((verdict for verdict in SEVERITY if verdict in verdicts), Verdict.UNCHANGED)


def judge(variant: VariantChange, policy: Policy) -> Judgement:
    """The verdict on one variant, with everything that it rests on, the gravest first."""
    reasons = [*_critical(variant), *(_role(role, policy) for role in variant.roles), *_unknown(variant)]
    reasons += [reason for cost in variant.costs if (reason := _cost(cost, policy))]
    reasons.sort(key=lambda reason: SEVERITY.index(reason.verdict))
    return Judgement(variant.name, most_severe([reason.verdict for reason in reasons]), tuple(reasons))


def _critical(variant: VariantChange) -> Iterator[Reason]:
    for flip in variant.flips:
        if flip.critical and flip.lost and flip.everywhere:
            seeds = f"all {flip.after.total} seeds" if flip.after.total > 1 else "its only seed"
            yield Reason(Verdict.REGRESSED, f"critical case {flip.case} passed before and fails under {seeds}")


def _unknown(variant: VariantChange) -> Iterator[Reason]:
    """What there is nothing to compare of: none of it may pass for unchanged."""
    if variant.missing:
        text = f"{len(variant.missing)} of {len(variant.seeds_after)} trials have no result"
        yield Reason(Verdict.INCONCLUSIVE, f"{text}: {variant.missing[0]}")
    if variant.unscored:
        cases = plural(variant.unscored, "case")
        text = f"{cases} that had a score before cannot be scored under every seed now"
        yield Reason(Verdict.INCONCLUSIVE, text)
    if not variant.roles and not variant.missing:
        why = f": before, {variant.failures_before[0]}" if variant.failures_before else ""
        yield Reason(Verdict.INCONCLUSIVE, f"nothing of it could be compared{why}")


# --- behaviour ---------------------------------------------------------------------------------------------------


def _role(role: RoleChange, policy: Policy) -> Reason:
    moved = 100 * role.difference.value
    told = f"{role.role} {_percent(role.before.value)}, now {_percent(role.after.value)}"
    least = policy.least - 1e-9
    if role.worse_adjusted <= policy.alpha and -moved >= least:
        return Reason(Verdict.REGRESSED, f"{told}: {_points(-moved)} lost ({chance(role.worse_adjusted)})")
    if 100 * role.worst >= policy.margin:
        upper = f"up to {_points(100 * role.worst)} may be lost, more than the margin of {policy.margin:g}"
        return Reason(Verdict.INCONCLUSIVE, f"{told}: {upper}; more seeds or cases would tell")
    if role.better_adjusted <= policy.alpha and moved >= least:
        return Reason(Verdict.IMPROVED, f"{told}: {_points(moved)} gained ({chance(role.better_adjusted)})")
    shown = max(100 * role.detectable, policy.least)
    safe = f"less than {_points(max(0.0, 100 * role.worst))} lost with 95% confidence"
    return Reason(Verdict.UNCHANGED, f"{told}: {safe}; a loss of {_points(shown)} would have shown")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(points: float) -> str:
    return f"{points:.1f} points"


def chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


# --- costs -------------------------------------------------------------------------------------------------------


def _cost(cost: CostChange, policy: Policy) -> Reason | None:
    """None where the two are not compared; what hinders it stands beside the figures."""
    if cost.hindrance or len(cost.before) < REPEATS:
        return None
    old, new = _mean(cost.before), _mean(cost.after)
    rise, room = (new - old) / old, tolerance(cost, policy)
    told = f"{cost.what} {amount(cost.before)}, now {amount(cost.after)}"
    if rise > room:
        return Reason(Verdict.REGRESSED, f"{told}: {100 * rise:.0f}% more, where {100 * room:.0f}% may be chance")
    return Reason(Verdict.UNCHANGED, f"{told}: within {100 * room:.0f}%")


def tolerance(cost: CostChange, policy: Policy) -> float:
    """Share by which the mean may rise: what the baseline's repeats say of chance, and at least the policy's share.

    The end of a prediction interval for the mean of as many new trainings, by Student's quantile.
    """
    values = [one.value for one in cost.before]
    error = stdev(values) * math.sqrt(1 / len(values) + 1 / len(cost.after)) / fmean(values)
    return max(_floor(cost, policy), statistics.student(len(values) - 1, 2 * SURE - 1) * error)


def _floor(cost: CostChange, policy: Policy) -> float:
    if cost.before[0].unit is Unit.SECONDS:
        return policy.slower
    return policy.resident if cost.resident else policy.larger


def _mean(figures: Sequence[Measurement]) -> float:
    return fmean(figure.value for figure in figures)


def amount(figures: Sequence[Measurement]) -> str:
    """The mean, with its unit."""
    mean = _mean(figures)
    return f"{mean:.1f} s" if figures[0].unit is Unit.SECONDS else f"{mean / MIB:.0f} MiB"
