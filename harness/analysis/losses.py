"""The net losses of a run's variants on `retain` and `avoid` cases: both roles together, and each apart.

All cases with a score of the base model count. The loss of a variant depends on its own answers and on those of the
base model, never on other variants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.analysis import net_loss
from harness.analysis.net_loss import TWO_SIDED
from harness.analysis.score_table import Pair, ScoreTable, pair
from harness.analysis.statistics import LEVEL
from harness.core.quantities import interval, lower_bound, upper_bound
from harness.core.quantities import points as in_points
from harness.core.run_results import Loss, LossVerdict
from harness.core.suite import Case, Role
from harness.core.wording import plural

GUARDED = (Role.RETAIN, Role.AVOID)
"""Roles whose pass rate a tuned model must not lower."""
EVERYTHING = 100.0
"""The largest possible loss, in points."""


def losses(
    cases: Sequence[Case], roles: Sequence[Role], base: ScoreTable, variants: Sequence[ScoreTable], margin: float
) -> list[Loss | None]:
    """Return the net loss of each variant on the cases of these roles. A loss is None if there are no such cases.

    Args:
        cases: all cases of one split.
        roles: the roles of the cases to use.
        base: the base model's scores.
        variants: the variants' scores.
        margin: the largest loss allowed, in points of what the base model passes.
    """
    guarded = [case for case in cases if case.role in roles]
    pairs = [guarded_pair(guarded, base, own) for own in variants]
    return [
        _loss(found, margin) if found else _nothing_to_compare(guarded, own)
        for own, found in zip(variants, pairs, strict=True)
    ]


def guarded_pair(cases: Sequence[Case], base: ScoreTable, own: ScoreTable) -> Pair | None:
    """Return the scores of the base model and a variant; missing answers of the variant count as failed."""
    before = base.on([case.id for case in cases])
    return pair(cases, before, own.on(before.cells).failing(before.cells, own.seeds))


def _nothing_to_compare(cases: Sequence[Case], own: ScoreTable) -> Loss | None:
    """Return a loss of which nothing is known if there are cases, but none for which the base model has a score."""
    if not cases or not own.seeds:
        return None
    nothing = (None, None, None, None, None)
    return Loss(0, 0.0, 0.0, 0.0, *nothing, LossVerdict.CANNOT_TELL, None, 0, len(own.seeds))


def _loss(found: Pair, margin: float) -> Loss:
    before, after, groups, share = found.before, found.after, found.groups, margin / 100
    was, now = before.mean(axis=0), after.mean(axis=0)
    shown, decides = (net_loss.net_loss(before, after, groups, level=level) for level in (TWO_SIDED, LEVEL))
    word = verdict(found, shown, decides, margin)
    return Loss(
        cases=len(groups),
        base_passed=float(was.sum()),
        broken=float((was * (1 - now)).sum()),
        fixed=float(((1 - was) * now).sum()),
        points=points(decides.value) if decides else None,
        low=points(shown.low) if shown else None,
        high=points(shown.high) if shown else None,
        lower=points(decides.low) if decides else None,
        upper=points(decides.high) if decides else None,
        verdict=word,
        needed=_needed(found, share) if word is LossVerdict.CANNOT_TELL else None,
        clusters=len(dict.fromkeys(name or n for n, name in enumerate(groups))),
        seeds=len(after),
    )


def verdict(
    found: Pair, shown: net_loss.NetLoss | None, decides: net_loss.NetLoss | None, margin: float
) -> LossVerdict:
    """Return the verdict: LOSES from the two-sided 95% interval, KEEPS from the one-sided 95% upper bound.

    A one-sided 95% lower bound would say of up to 1.3% of harmless variants that they lose; the lower end of the
    interval says so of at most half as many (`tests/studies/placebos.py`). If the base model passes too few cases,
    nothing is shown. A margin of 100 allows every loss, so that every variant keeps enough.

    Args:
        found: the scores of the base model and the variant.
        shown: the net loss with its two-sided 95% interval, or None without base passes.
        decides: the net loss with its one-sided 95% bounds, or None without base passes.
        margin: the largest loss allowed, in points of what the base model passes.
    """
    if margin >= EVERYTHING:  # nothing can lose more than everything
        return LossVerdict.KEEPS
    if shown is None or decides is None or float(found.before.mean(axis=0).sum()) < least_passes(found, margin / 100):
        return LossVerdict.CANNOT_TELL
    if decides.high < margin / 100:
        return LossVerdict.KEEPS
    return LossVerdict.LOSES if shown.low > margin / 100 else LossVerdict.CANNOT_TELL


def least_passes(found: Pair, margin: float) -> int:
    """Return how many cases the base model must pass. With a margin of 0, only a net gain is shown to keep them."""
    return net_loss.least_passes(margin, net_loss.design_effect(found.before, found.groups)) if margin else 1


def _needed(found: Pair, margin: float) -> int | None:
    needed = net_loss.cases_needed(found.before, found.after, margin, found.groups)
    if needed is None:
        return None
    return max(needed, math.ceil(least_passes(found, margin) / float(found.before.mean())))


def points(share: float) -> float | None:
    """Return a share in points, or None if it is not finite."""
    return 100 * share + 0.0 if math.isfinite(share) else None  # no -0.0


def by_role(
    cases: Sequence[Case], base: ScoreTable, variants: Sequence[ScoreTable], margin: float
) -> list[dict[Role, Loss]]:
    """Return the net losses of each variant by role."""
    found = {role: losses(cases, (role,), base, variants, margin) for role in GUARDED}
    return [{role: loss for role in GUARDED if (loss := found[role][n])} for n in range(len(variants))]


# --- in words ----------------------------------------------------------------------------------------------------


def counts(loss: Loss) -> str:
    """Return how many cases the base model passes, and how many of the cases the variant breaks and fixes."""
    groups = f" in {plural(loss.clusters, 'group')}" if loss.grouped else ""
    mean = ", as means over seeds" if loss.seeds > 1 else ""
    return (
        f"the base passes {in_points(loss.base_passed)} of {plural(loss.cases, 'case')}{groups}; the variant breaks "
        f"{in_points(loss.broken)} of these and fixes {in_points(loss.fixed)} of the others{mean}"
    )


def seen(loss: Loss) -> str:
    """Return the net loss without its uncertainty."""
    if loss.points is None:
        return "the base passes none, so no loss can be measured"
    size = in_points(abs(loss.points))
    if size == "0":
        return "nothing lost of what the base passes"
    return f"{size} points of what the base passes {'lost' if loss.points > 0 else 'gained'}"


def lost_in_one_role(own: Mapping[Role, Loss], margin: float, held_out: str = "") -> tuple[str, ...]:
    """Return a sentence for each role whose cases alone show a loss, or seem to lose more than the margin.

    The verdict is about both roles together, in which a loss on the few cases of one role can be hidden.

    Args:
        own: the losses of a variant by role.
        margin: the largest loss allowed, in points of what the base model passes.
        held_out: `held-out ` for the cases of a confirmation.
    """
    return tuple(
        f"On the {held_out}{role} cases alone, {counts(loss)}: {seen(loss)}, and {between(loss)}; "
        "the verdict is about both roles together."
        for role, loss in hidden_in_one_role(own, margin).items()
    )


def hidden_in_one_role(own: Mapping[Role, Loss], margin: float) -> dict[Role, Loss]:
    """Return the losses of roles whose cases alone show a loss, or seem to lose more than the margin.

    If there are cases of one role only, nothing is hidden by the verdict, and nothing is returned.
    """
    if len(own) < len(GUARDED):
        return {}
    return {role: loss for role, loss in own.items() if (loss.points or 0.0) > margin or (loss.low or 0.0) > 0}


def less_than(upper: float) -> str:
    """Return an upper bound of a net loss in words. If it is negative, a gain is shown."""
    return f"less than {upper_bound(upper)} lost" if upper > 0 else f"at least {lower_bound(-upper)} gained"


def between(loss: Loss) -> str:
    """Return the two-sided interval of a net loss in words. If nothing limits the gain, only the upper end counts."""
    if loss.low is not None:
        return f"{interval(loss.low, loss.high)} lost with 95% confidence"
    if loss.high is None or loss.high >= EVERYTHING:
        return "the cases cannot tell how much is really lost"
    return f"up to {upper_bound(loss.high)} lost with 95% confidence"


def bounded(loss: Loss, margin: float) -> str:
    """Return the net loss with the bound that decides the verdict, and the margin."""
    alone = "" if loss.seeds > 1 else ". This holds for one training seed; another seed may lose more"
    if loss.points is None:
        return seen(loss)
    if loss.verdict is LossVerdict.KEEPS and loss.upper is not None:
        words = f"{less_than(loss.upper)} with 95% confidence"
    elif loss.verdict is LossVerdict.LOSES:
        words = f"more than {lower_bound(loss.low)} lost with 95% confidence"
    else:
        words = between(loss)
    return f"{seen(loss)}, and {words}; the suite allows {margin:g}{alone}"
