"""Decide from a comparison of two runs whether anything became worse, and give the reasons.

A variant has REGRESSED in one of these cases:

- The pass rate of a role fell by at least `Policy.least` points, and the adjusted p-value is at most `Policy.alpha`.
- A case marked `critical` passed under every seed before and fails under every seed now.
- Memory or training time rose by more than the variation between the baseline's seeds explains (`tolerance`).

A variant that has not REGRESSED is INCONCLUSIVE, unless every loss is shown to be smaller than the suite's margin and
every part could be compared. Then it is IMPROVED if the pass rate of a role rose significantly, by at least
`Policy.least` points, and UNCHANGED if no pass rate did. Differences between the fingerprints of the trainings
(`VariantChange.drift`) are listed and do not affect the verdict.
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
from harness.core.run_results import Verdict
from harness.core.units import Unit
from harness.core.wording import plural

SEVERITY = (Verdict.NOT_COMPARABLE, Verdict.REGRESSED, Verdict.INCONCLUSIVE, Verdict.IMPROVED, Verdict.UNCHANGED)
"""Verdicts, the most severe first. The verdict on a run is the most severe verdict on any of its variants."""
MIN_TRAININGS = 3
"""If the baseline has fewer trainings, the normal variation of costs is unknown, and costs are not judged."""
COST_CONFIDENCE = 0.999
"""Confidence required to call a higher cost a regression."""


def decide(comparison: Comparison, policy: Policy) -> Decision:
    """Decide on a run by the most severe verdict on a variant. If an obstacle exists, decide NOT_COMPARABLE."""
    obstacles = tuple(_obstacles(comparison))
    if obstacles:
        return Decision(Verdict.NOT_COMPARABLE, obstacles, (), policy, comparison)
    judged = tuple(judge(variant, policy) for variant in comparison.variants)
    verdict = most_severe([judgement.verdict for judgement in judged])
    named = [judgement.variant for judgement in judged if judgement.verdict is verdict]
    return Decision(verdict, (f"{verdict}: {', '.join(named)}",), judged, policy, comparison)


def _obstacles(comparison: Comparison) -> Iterator[str]:
    for obstacle in comparison.obstacles:
        yield describe_mismatch(obstacle)
    if not comparison.variants:
        yield "the two runs have no variant in common"
    elif not any(variant.roles or variant.missing for variant in comparison.variants):
        yield "the two suites share no case with the same prompt"


def describe_mismatch(mismatch: Mismatch) -> str:
    """Describe a difference, for example `learning_rate: 0.001 -> 0.01`."""
    return f"{mismatch.what}: {mismatch.before or 'none'} -> {mismatch.after or 'none'}"


def most_severe(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the most severe of the verdicts, or UNCHANGED if there are none."""
    return next((verdict for verdict in SEVERITY if verdict in verdicts), Verdict.UNCHANGED)


def judge(variant: VariantChange, policy: Policy) -> Judgement:
    """Return the verdict on one variant with all reasons, the most severe first."""
    reasons = [*_critical(variant), *(_role(role, policy) for role in variant.roles), *_not_compared(variant)]
    reasons += [reason for cost in variant.costs if (reason := _cost(cost, policy))]
    reasons.sort(key=lambda reason: SEVERITY.index(reason.verdict))
    unjudged = tuple(f"{_means(cost)}: {why}" for cost in variant.costs if (why := not_judged(cost)))
    return Judgement(variant.name, most_severe([reason.verdict for reason in reasons]), tuple(reasons), unjudged)


def _critical(variant: VariantChange) -> Iterator[Reason]:
    for flip in variant.flips:
        if flip.critical and flip.lost and flip.everywhere:
            seeds = f"all {flip.after.total} seeds" if flip.after.total > 1 else "its only seed"
            yield Reason(Verdict.REGRESSED, f"critical case {flip.case} passed before and fails under {seeds}")


def _not_compared(variant: VariantChange) -> Iterator[Reason]:
    """Yield a reason for each part that could not be compared, because such a part must not count as unchanged."""
    if variant.missing:
        text = f"{len(variant.missing)} of {len(variant.seeds_after)} trials have no result"
        yield Reason(Verdict.INCONCLUSIVE, f"{text}: {variant.missing[0]}")
    if variant.unscored:
        cases = plural(variant.unscored, "case")
        text = f"{cases} that had a score before cannot be scored under every seed now"
        yield Reason(Verdict.INCONCLUSIVE, text)
    if not variant.roles and not variant.missing:
        why = f": before, {variant.failures_before[0]}" if variant.failures_before else ""
        yield Reason(Verdict.INCONCLUSIVE, f"no result could be compared{why}")


# --- pass rates --------------------------------------------------------------------------------------------------


def _role(role: RoleChange, policy: Policy) -> Reason:
    moved = 100 * role.difference.value
    rates = f"{role.role} {_percent(role.before.value)}, now {_percent(role.after.value)}"
    least = policy.least - 1e-9
    if role.worse_adjusted <= policy.alpha and -moved >= least:
        return Reason(Verdict.REGRESSED, f"{rates}: {_points(-moved)} lost ({chance(role.worse_adjusted)})")
    if 100 * role.worst >= policy.margin:
        upper = f"up to {_points(100 * role.worst)} may be lost, more than the margin of {policy.margin:g}"
        return Reason(Verdict.INCONCLUSIVE, f"{rates}: {upper}; more seeds or cases are needed to decide")
    if role.better_adjusted <= policy.alpha and moved >= least:
        return Reason(Verdict.IMPROVED, f"{rates}: {_points(moved)} gained ({chance(role.better_adjusted)})")
    shown = max(100 * role.detectable, policy.least)
    safe = f"less than {_points(max(0.0, 100 * role.worst))} lost with 95% confidence"
    return Reason(Verdict.UNCHANGED, f"{rates}: {safe}; a loss of {_points(shown)} would have been detected")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(points: float) -> str:
    return f"{points:.1f} points"


def chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


# --- costs -------------------------------------------------------------------------------------------------------


def _cost(cost: CostChange, policy: Policy) -> Reason | None:
    """Judge a change of cost. Return None if it is not judged."""
    if not_judged(cost):
        return None
    old, new = _mean(cost.before), _mean(cost.after)
    rise, room = (new - old) / old, tolerance(cost, policy)
    if rise > room:
        more = f"{100 * rise:.0f}% more, of which chance explains up to {100 * room:.0f}%"
        return Reason(Verdict.REGRESSED, f"{_means(cost)}: {more}")
    return Reason(Verdict.UNCHANGED, f"{_means(cost)}: within {100 * room:.0f}%")


def not_judged(cost: CostChange) -> str:
    """Return why a change of cost is not judged; empty if it is."""
    if cost.hindrance:
        return f"not compared: {cost.hindrance}"
    if len(cost.before) >= MIN_TRAININGS:
        return ""
    found = plural(len(cost.before), "finished training")
    return f"not judged: the baseline has {found}; bless a run with at least {MIN_TRAININGS} seeds"


def _means(cost: CostChange) -> str:
    return f"{cost.what} {amount(cost.before)}, now {amount(cost.after)}"


def tolerance(cost: CostChange, policy: Policy) -> float:
    """Return the share by which the mean cost may rise before the rise counts as a regression.

    This is the upper end of the prediction interval for the mean of the later trainings (Student's quantile with the
    variance of the baseline's trainings), and at least the policy's tolerance.
    """
    values = [one.value for one in cost.before]
    error = stdev(values) * math.sqrt(1 / len(values) + 1 / len(cost.after)) / fmean(values)
    return max(_fixed_tolerance(cost, policy), statistics.student(len(values) - 1, 2 * COST_CONFIDENCE - 1) * error)


def _fixed_tolerance(cost: CostChange, policy: Policy) -> float:
    if cost.before[0].unit is Unit.SECONDS:
        return policy.slower
    return policy.resident if cost.resident else policy.larger


def _mean(figures: Sequence[Measurement]) -> float:
    return fmean(figure.value for figure in figures)


def amount(figures: Sequence[Measurement]) -> str:
    """Return the mean of the figures as text, with its unit; `unknown` if there are none."""
    if not figures:
        return "unknown"
    mean = _mean(figures)
    return f"{mean:.1f} s" if figures[0].unit is Unit.SECONDS else f"{mean / MIB:.0f} MiB"
