"""Time and memory that a trial needed to produce the answers in its record."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.costs import pool
from harness.core.measurement import Phase, PhaseCost
from harness.runner.work_items import WorkItem
from harness.storage.cache import AnswerPass


def answering_costs(item: WorkItem, passes: Sequence[AnswerPass]) -> tuple[PhaseCost, ...]:
    """Return one cost per phase: the sum over all answering passes that answered a prompt of this work item."""
    wanted = {prompt.key for prompt in item.all_prompts}
    costs = [cost for made in passes if any(a.key in wanted for a in made.answers) for cost in made.costs]
    by_phase = {phase: [cost for cost in costs if cost.phase is phase] for phase in Phase}
    # A worker loads the base model once for all of its answering passes, so only the first load counts.
    return tuple(pool(same[:1] if phase is Phase.LOAD else same, sum) for phase, same in by_phase.items() if same)
