"""Differences from the base: turn scores of two models on the same cases into a `Change` with its uncertainty.

A change counts as better or worse only if it exceeds the noise of the cases and the noise of the training seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.analysis import statistics
from harness.analysis.score_table import Pair
from harness.core.quantities import interval, points
from harness.core.run_results import Change, ScoreChange, Verdict
from harness.core.suite import Role
from harness.core.wording import plural

ALPHA = 1 - statistics.LEVEL
MAX_ADVISED_CASES = 100_000
"""More cases are suggested only if fewer than this number are needed, because nobody writes so many."""


def score_change(found: Pair, rng: np.random.Generator) -> ScoreChange | None:
    """Return the difference of mean scores in points.

    Return None if all scores are 0 or 1, because the pass rates then show the same difference, or if there is only one
    case or group.
    """
    if all(np.isin(side, (0.0, 1.0)).all() for side in (found.before, found.after)):
        return None
    span = statistics.bootstrap_difference(found.before, found.after, rng, found.groups)
    if span.cases < 2:  # the bootstrap needs two clusters
        return None
    return ScoreChange(100 * span.value + 0.0, 100 * span.low + 0.0, 100 * span.high + 0.0)


def standard_error(found: Pair) -> float:
    """Return the standard error of the difference of two pass rates, in points, over cases and training seeds.

    The variance over cases has n - 1 in its denominator, so that the difference is exactly one standard error
    if a single case changed.
    """
    noise, cases = statistics.noise_of_difference(found.before, found.after, found.groups), found.before.shape[1]
    # With clusters, `noise` already contains this correction.
    correction = cases / (cases - 1) if noise.clusters == cases > 1 else 1.0
    return 100 * math.sqrt(noise.variance + (correction - 1) * noise.cases)


def change(role: Role, found: Pair, margin: float, rng: np.random.Generator) -> Change:
    """Return the change in pass rate on cases of `role` from one model to another.

    Args:
        role: the role of the cases.
        found: the scores of both models on these cases; `before` has those of the first model.
        margin: the smallest difference that matters, in points. The verdict is UNCHANGED only if the interval excludes
            a loss of this size, and a change of this size would have been detected.
        rng: generator for the sign-flip test.
    """
    before, after, groups = found.before, found.after, found.groups
    span = statistics.difference(before, after, groups)
    noise = statistics.noise_of_difference(before, after, groups)
    idle = statistics.idle_flips(before, after)
    was, now = before.mean(axis=0), after.mean(axis=0)
    draft = Change(
        role=role,
        points=100 * span.value + 0.0,  # no -0.0
        low=100 * span.low + 0.0,
        high=100 * span.high + 0.0,
        case_noise=100 * math.sqrt(noise.cases),
        seed_noise=100 * math.sqrt(sum(part for part, _ in noise.seeds)) if len(after) > 1 else None,
        cases=before.shape[1],
        clusters=noise.clusters,
        seeds=len(after),
        fixed=float(((1 - was) * now).sum()),
        broken=float((was * (1 - now)).sum()),
        verdict=Verdict.INCONCLUSIVE,
        reason="",
        p_worse=statistics.sign_flip(before, after, rng, groups),
    )
    share = span.cases / before.shape[1]
    wanted = (
        math.ceil(statistics.cases_needed(max(margin, 1.0) / 100, idle, alpha=ALPHA / 2) / share) if share else None
    )
    few = max(100 * _detectable_share(noise, span.cases, idle), -draft.low) >= margin
    return _judged(replace(draft, needed=wanted), few=few)


def _detectable_share(noise: statistics.Noise, cases: float, idle: float) -> float:
    """Return the smallest change, as a share, that the two-sided interval detects with 80% power."""
    seen = (noise.quantile(statistics.LEVEL) + statistics.normal(statistics.POWER)) * math.sqrt(noise.variance)
    return min(1.0, max(statistics.detectable(cases, idle, alpha=ALPHA / 2), seen))


def adjusted_for_family(changes: Sequence[Change]) -> list[Change]:
    """Adjust the p-values by Holm's method, because among many variants one can look worse by chance.

    A REGRESSED change that is no longer significant becomes INCONCLUSIVE.
    """
    adjusted = statistics.holm([1.0 if one.p_worse is None else one.p_worse for one in changes])
    return [_adjusted(replace(one, p_worse=p), len(changes)) for one, p in zip(changes, adjusted, strict=True)]


def _adjusted(found: Change, size: int) -> Change:
    if found.verdict is not Verdict.REGRESSED or (found.p_worse or 0.0) <= ALPHA:
        return found
    words = f"{_size(found)}, which can be chance among {size} variants (p = {found.p_worse:.2f})."
    return replace(found, verdict=Verdict.INCONCLUSIVE, reason=words)


def _judged(found: Change, *, few: bool) -> Change:
    """Return the change with its verdict and the reason. `needed` is kept only if more cases would help.

    With `few`, the cases and seeds are too few to exclude a loss of the margin.
    """
    if found.low <= 0 <= found.high:
        return _within(found, few=few)
    if found.seed_noise is None:
        words = f"{_size(found)} {_over(found)}, but with one training seed. At least 3 seeds are needed to decide."
        return replace(found, needed=None, reason=words)
    verdict = Verdict.IMPROVED if found.points > 0 else Verdict.REGRESSED
    ends = (found.low, found.high) if found.points > 0 else (-found.high, -found.low)
    words = f"{_size(found)} ({interval(*ends)} with 95% confidence) {_over(found)}."
    return replace(found, verdict=verdict, needed=None, reason=words)


def _over(found: Change) -> str:
    groups = f" in {plural(found.clusters, 'group')}" if found.clusters < found.cases else ""
    seeds = f" and {found.seeds} training seeds" if found.seed_noise is not None else ""
    return f"over {plural(found.cases, 'case')}{groups}{seeds}"


def _within(found: Change, *, few: bool) -> Change:
    span = f"({interval(found.low, found.high)} points with 95% confidence)"
    seen = f"{_size(found)} {_over(found)}, within the noise {span}"
    remedy, needed = "", found.needed if few and _more_cases_help(found) else None
    if found.seed_noise is None:
        more = f"About {needed} cases like these and 3 training seeds" if needed else "At least 3 training seeds"
        remedy = f", with one training seed. {more} are needed to decide"
    elif not few:
        return replace(found, verdict=Verdict.UNCHANGED, needed=None, reason=f"{seen}.")
    elif found.seed_noise > found.case_noise:
        remedy, needed = ". Most of the noise is between training seeds: more seeds would reduce it", None
    elif needed:
        remedy = f". About {needed} cases like these are needed to decide"
    return replace(found, needed=needed, reason=f"{seen}{remedy}.")


def _more_cases_help(found: Change) -> bool:
    return found.needed is not None and found.cases < found.needed < MAX_ADVISED_CASES


def _size(found: Change) -> str:
    if not round(found.points, 1):
        return "No difference"
    return f"{points(abs(found.points))} points {'more' if found.points > 0 else 'less'}"
