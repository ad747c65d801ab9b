"""The verdict of the confirmation: do held-out cases and fresh training seeds support the chosen variant?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.analysis import differences, net_loss
from harness.analysis.losses import GUARDED, counts, guarded_pair, less_than, lost_in_one_role, seen
from harness.analysis.score_table import Pair, ScoreTable, pair
from harness.core.quantities import lower_bound
from harness.core.run_results import Change, Confirmation, Finding, Loss, Outcome
from harness.core.suite import Role, Split, Suite
from harness.core.training_outcome import Status
from harness.core.wording import listed, plural

LEVEL = 0.8
"""Level of the one-sided upper bound that confirms. The choice has already shown 95% on other cases and seeds."""
HELD_OUT = "mark some with `split: confirm`"


def confirmation(suite: Suite, objective: Role, base: ScoreTable, own: ScoreTable, again: Outcome) -> Confirmation:
    """Return the verdict of the confirmation.

    Args:
        suite: the suite with its margin.
        objective: the role whose pass rate decided the choice.
        base: the base model's scores on the held-out cases.
        own: the scores of the chosen variant on the held-out cases, under fresh seeds.
        again: the outcome of the chosen variant on the held-out cases.
    """
    guarded = [case for case in suite.of(Split.CONFIRM) if case.role in GUARDED]
    found = guarded_pair(guarded, base, own)
    bounds = net_loss.net_loss(found.before, found.after, found.groups, level=LEVEL) if found else None
    upper = 100 * bounds.high if bounds else None
    gain = _gain(suite, objective, base, own)
    against = tuple(_against(suite, objective, again, gain))
    if against:
        return Confirmation(Finding.REFUTED, against, upper)
    needed = _needed(found, suite.margin)
    open_questions = tuple(_unfinished(again)) or (
        *_loss_not_shown(suite, again.loss, upper, needed),
        *_gain_not_shown(objective, gain),
    )
    if open_questions:
        return Confirmation(Finding.NOT_CONFIRMED, open_questions, upper, needed)
    return Confirmation(Finding.CONFIRMED, tuple(_support(suite, objective, again, upper, gain)), upper)


def _gain(suite: Suite, objective: Role, base: ScoreTable, own: ScoreTable) -> Change | None:
    """Return the change of the objective's pass rate; missing answers of the variant count as failed."""
    cases = [case for case in suite.of(Split.CONFIRM) if case.role is objective]
    before = base.on([case.id for case in cases])
    found = pair(cases, before, own.on(before.cells).failing(before.cells, own.seeds))
    return differences.change(objective, found, suite.margin, np.random.default_rng(0)) if found else None


def _against(suite: Suite, objective: Role, again: Outcome, gain: Change | None) -> Iterator[str]:
    tried = [status for status in again.statuses if status is not Status.CANCELLED]
    failed = [status for status in tried if status is not Status.SUCCEEDED]
    if failed:
        how = listed(dict.fromkeys(failed))
        yield f"Under {len(failed)} of {len(tried)} fresh seeds its training did not finish ({how})."
    loss = again.loss
    if loss and loss.lower is not None and loss.lower > suite.margin:
        bound = f"more than {lower_bound(loss.lower)} lost with 95% confidence"
        yield f"{_guarded(loss)}: {seen(loss)}, and {bound}; the suite allows {suite.margin:g}."
    if gain and gain.high < 0:
        yield f"On the held-out {objective} cases it is worse than the base: {gain.reason}"


def _unfinished(again: Outcome) -> Iterator[str]:
    missing = sum(status is Status.CANCELLED for status in again.statuses)
    if missing:
        trials = plural(len(again.statuses), "confirmation trial")
        yield f"{missing} of {trials} have no result. Run the same command again to continue."


def _loss_not_shown(suite: Suite, loss: Loss | None, upper: float | None, needed: int | None) -> Iterator[str]:
    if loss is None and any(case.role in GUARDED for case in suite.cases):
        yield f"The suite has no held-out retain or avoid cases: {HELD_OUT}."
    elif loss and suite.margin < 100 and (upper is None or upper >= suite.margin):
        bound = "" if upper is None else f", and {less_than(upper)} with 80% confidence"
        allowed = f"The suite allows {suite.margin:g}. {_remedy(upper, needed)}"
        yield f"{_guarded(loss)}: {seen(loss)}{bound}. {allowed}"


def _remedy(upper: float | None, needed: int | None) -> str:
    if upper is None:
        return "Add held-out cases that the base passes."
    if needed is None:
        return "No number of cases like these would confirm it."
    return f"About {needed} held-out retain and avoid cases like these would confirm it."


def _needed(found: Pair | None, margin: float) -> int | None:
    if found is None:
        return None
    return net_loss.cases_needed(found.before, found.after, margin / 100, found.groups, level=LEVEL)


def _gain_not_shown(objective: Role, gain: Change | None) -> Iterator[str]:
    if gain is None:
        yield f"The suite has no held-out {objective} cases: {HELD_OUT}."
    elif gain.low <= 0:
        yield f"On the held-out {objective} cases it is not shown to be better than the base: {gain.reason}"


def _support(suite: Suite, objective: Role, again: Outcome, upper: float | None, gain: Change | None) -> Iterator[str]:
    if gain:
        yield f"On the held-out {objective} cases it is better than the base: {gain.reason}"
    if again.loss and upper is not None:
        bound = f"{less_than(upper)} with 80% confidence"
        yield f"{_guarded(again.loss)}: {seen(again.loss)}, and {bound}; the suite allows {suite.margin:g}."
    yield from lost_in_one_role(again.losses, suite.margin, "held-out ")


def _guarded(loss: Loss) -> str:
    return f"On the held-out retain and avoid cases {counts(loss)}"
