"""Whether a variant is eligible to be chosen, in words, with the reason."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.core import wording
from harness.core.run_results import Outcome, Results, Safety
from harness.core.training_outcome import Status


@dataclass(frozen=True)
class Eligibility:
    """Whether a variant is eligible (`yes`, `no` or `unclear`), and the reason."""

    word: str
    why: str


def eligibility(results: Results, variant: Outcome) -> Eligibility:
    """Decide whether a variant is eligible, and give the reason.

    A variant is eligible if every seed finished and it is shown, with 95% confidence, to lose less than the suite's
    margin on retain and avoid cases.
    """
    if variant.name in results.choice.eligible:
        return Eligibility("yes", _small_loss(variant))
    if any(status is not Status.SUCCEEDED for status in variant.statuses) or not variant.statuses:
        return Eligibility("no", f"did not finish: {wording.listed(dict.fromkeys(_unfinished(variant)))}")
    safety = variant.safety
    if safety is None:
        return Eligibility("no", "no retain or avoid cases to compare")
    if safety.lost >= results.run.suite.margin:
        return Eligibility("no", f"loses {safety.lost:.0f} points")
    more = f"; about {safety.needed} cases are needed to tell" if safety.needed and safety.needed > safety.cases else ""
    return Eligibility("unclear", f"may lose {safety.upper:.0f} points{more}")


def loss_bound(safety: Safety) -> int:
    """Return the 95% upper bound of the loss in points. It is rounded up, so that it remains an upper bound."""
    return math.ceil(safety.upper)


def _unfinished(variant: Outcome) -> list[str]:
    return [status.value for status in variant.statuses if status is not Status.SUCCEEDED] or ["not started"]


def _small_loss(variant: Outcome) -> str:
    if variant.safety is None:
        return "the suite has no retain or avoid cases"
    return f"loses less than {loss_bound(variant.safety)} points"
