"""Costs of a trial's phases: what it took to give the answers that its record holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.records import Measurement, Phase, PhaseCost
from harness.runner.goals import Goal
from harness.store import AnswerPass


def answering_costs(goal: Goal, passes: Sequence[AnswerPass]) -> tuple[PhaseCost, ...]:
    """One cost per phase, over all passes that gave an answer to this goal. A model is loaded once."""
    wanted = {prompt.key for prompt in goal.asked}
    costs = [cost for made in passes if any(a.key in wanted for a in made.answers) for cost in made.costs]
    return tuple(_joined(same) for phase in Phase if (same := [c for c in costs if c.phase is phase]))


def _joined(costs: Sequence[PhaseCost]) -> PhaseCost:
    first = costs[0]
    if first.phase is Phase.LOAD or len(costs) == 1:
        return first
    return PhaseCost(
        phase=first.phase,
        seconds=replace(first.seconds, value=sum(cost.seconds.value for cost in costs)),
        tokens=sum(cost.tokens for cost in costs),
        peak_resident=max((cost.peak_resident for cost in costs), key=_value),
        peak_allocated=_largest(cost.peak_allocated for cost in costs),
        peak_reserved=_largest(cost.peak_reserved for cost in costs),
        peak_device=_largest(cost.peak_device for cost in costs),
        left_allocated=costs[-1].left_allocated,
        limit=first.limit,
        note=first.note,
        models=max(cost.models for cost in costs),
    )


def _largest(peaks: Iterable[Measurement | None]) -> Measurement | None:
    return max((peak for peak in peaks if peak), key=_value, default=None)


def _value(peak: Measurement) -> float:
    return peak.value
