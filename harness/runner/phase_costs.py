"""Costs of a trial's phases: what it took to give the answers that its record holds."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.costs import pool
from harness.core.measurement import Phase, PhaseCost
from harness.runner.goals import Goal
from harness.storage.cache import AnswerPass


def answering_costs(goal: Goal, passes: Sequence[AnswerPass]) -> tuple[PhaseCost, ...]:
    """One cost per phase, over all passes that gave an answer to this goal. A model is loaded once."""
    wanted = {prompt.key for prompt in goal.asked}
    costs = [cost for made in passes if any(a.key in wanted for a in made.answers) for cost in made.costs]
    by_phase = {phase: [cost for cost in costs if cost.phase is phase] for phase in Phase}
    # A worker loads the base once for all its passes.
    return tuple(pool(same[:1] if phase is Phase.LOAD else same, sum) for phase, same in by_phase.items() if same)
