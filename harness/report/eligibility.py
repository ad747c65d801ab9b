"""Whether a variant is eligible to be chosen, in words, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core import wording
from harness.core.quantities import lower_bound, upper_bound
from harness.core.run_results import Loss, LossVerdict, Outcome, Results
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
    if any(status is not Status.SUCCEEDED for status in variant.statuses) or not variant.statuses:
        return Eligibility("no", f"did not finish: {wording.listed(dict.fromkeys(_unfinished(variant)))}")
    if variant.loss is None:
        eligible = variant.name in results.choice.eligible
        why = "the suite has no retain or avoid cases" if eligible else "no retain or avoid cases to compare"
        return Eligibility("yes" if eligible else "no", why)
    if variant.loss.verdict is LossVerdict.LOSES:
        return Eligibility("no", f"loses more than {lower_bound(variant.loss.low)} points")
    if variant.name in results.choice.eligible:
        return Eligibility("yes", f"keeps: {_kept(variant.loss)}")
    if variant.loss.verdict is LossVerdict.KEEPS:
        return Eligibility("no", "trained elsewhere")
    return Eligibility("unclear", _cannot_tell(variant.loss))


def _kept(loss: Loss) -> str:
    if loss.upper is not None and loss.upper <= 0:
        return f"gains at least {lower_bound(-loss.upper)} points"
    return f"loses less than {upper_bound(loss.upper)} points"


def _cannot_tell(loss: Loss) -> str:
    if not loss.cases:
        return "cannot tell: the base model's answers have no score"
    if loss.points is None:
        return f"cannot tell: the base passes none of {wording.plural(loss.cases, 'case')}"
    more = f"; about {loss.needed} cases would tell" if loss.needed and loss.needed > loss.cases else ""
    return f"cannot tell: may lose {upper_bound(loss.upper)} points{more}"


def _unfinished(variant: Outcome) -> list[str]:
    return [status.value for status in variant.statuses if status is not Status.SUCCEEDED] or ["not started"]
