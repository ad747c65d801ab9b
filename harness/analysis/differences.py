"""Turns the scores of two sides on the same cases into a `Change`: the difference, its noises, and what that shows.

"Better" and "worse" are said only beyond both noises: that of the cases and that of the training seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.analysis import statistics
from harness.analysis.score_table import Pair
from harness.core.results import Change, ScoreChange, Verdict
from harness.core.suite import Role

ALPHA = 1 - statistics.LEVEL
MANY = 100_000
"""A number of cases that nobody writes: to ask for it is no advice."""


def score_change(found: Pair, rng: np.random.Generator) -> ScoreChange | None:
    """How graded scores differ; None where there are none but 0 and 1, or where one case (or group) has them all."""
    if all(np.isin(side, (0.0, 1.0)).all() for side in (found.before, found.after)):
        return None
    interval = statistics.bootstrap_difference(found.before, found.after, rng, found.groups)
    if interval.cases < 2:  # nothing to draw again
        return None
    return ScoreChange(100 * interval.value + 0.0, 100 * interval.low + 0.0, 100 * interval.high + 0.0)


def standard_error(found: Pair) -> float:
    """Of the difference of the two means, in points, over cases and over training seeds where there are several.

    Of the cases it is the usual one, with n - 1: a single case that flipped, of however many, is one standard error.
    """
    noise, cases = statistics.noise_of_difference(found.before, found.after, found.groups), found.before.shape[1]
    usual = cases / (cases - 1) if noise.clusters == cases > 1 else 1.0  # of clusters it has been taken so already
    return 100 * math.sqrt(noise.variance + (usual - 1) * noise.cases)


def change(role: Role, found: Pair, margin: float, rng: np.random.Generator) -> Change:
    """Return how the second side's pass rate on cases of `role` differs from the first side's.

    `margin` is the difference, in points, that matters: UNCHANGED is said where one of that size would have been found,
    and no loss of that size is left within the interval.
    """
    before, after, groups = found.before, found.after, found.groups
    interval = statistics.difference(before, after, groups)
    noise = statistics.noise_of_difference(before, after, groups)
    idle = statistics.idle_flips(before, after)
    draft = Change(
        role=role,
        points=100 * interval.value + 0.0,  # no -0.0
        low=100 * interval.low + 0.0,
        high=100 * interval.high + 0.0,
        case_noise=100 * math.sqrt(noise.cases),
        seed_noise=100 * math.sqrt(sum(part for part, _ in noise.seeds)) if len(after) > 1 else None,
        cases=before.shape[1],
        seeds=len(after),
        detectable=100 * _detectable_share(noise, interval.cases, idle),
        verdict=Verdict.INCONCLUSIVE,
        reason="",
        p_worse=statistics.sign_flip(before, after, rng, groups),
    )
    share = interval.cases / before.shape[1]
    wanted = (
        math.ceil(statistics.cases_needed(max(margin, 1.0) / 100, idle, alpha=ALPHA / 2) / share) if share else None
    )
    return _judged(replace(draft, needed=wanted), margin)


def _detectable_share(noise: statistics.Noise, cases: float, idle: float) -> float:
    """What the verdict, which looks at both sides, finds in 80%: by how many cases flip, and by the noise there was."""
    seen = (noise.quantile(statistics.LEVEL) + statistics.normal(statistics.POWER)) * math.sqrt(noise.variance)
    return min(1.0, max(statistics.detectable(cases, idle, alpha=ALPHA / 2), seen))


def adjusted_for_family(changes: Sequence[Change]) -> list[Change]:
    """Return the changes with Holm's p-values for all of them together: of twelve variants, one looks worse by chance.

    A change that is no longer significant becomes INCONCLUSIVE.
    """
    adjusted = statistics.holm([1.0 if one.p_worse is None else one.p_worse for one in changes])
    return [_family(replace(one, p_worse=p), len(changes)) for one, p in zip(changes, adjusted, strict=True)]


def _family(found: Change, size: int) -> Change:
    if found.verdict is not Verdict.REGRESSED or (found.p_worse or 0.0) <= ALPHA:
        return found
    words = f"{_size(found)}, which one of {size} variants may show by chance (p = {found.p_worse:.2f})."
    return replace(found, verdict=Verdict.INCONCLUSIVE, reason=f"{words} {_detectable(found)}")


def _judged(found: Change, margin: float) -> Change:
    """The verdict, in words; `needed` is kept where it is the remedy."""
    cases = "1 case" if found.cases == 1 else f"{found.cases} cases"
    over = f"over {cases}" + (f" and {found.seeds} training seeds" if found.seed_noise is not None else "")
    if found.low <= 0 <= found.high:
        judged = _within(found, margin, over)
    elif found.seed_noise is None:
        words = f"{_size(found)} {over}, but in one training; what another seed makes of it takes 3 seeds to tell."
        judged = replace(found, needed=None, reason=words)
    else:
        verdict = Verdict.IMPROVED if found.points > 0 else Verdict.REGRESSED
        least, most = sorted((abs(found.low), abs(found.high)))
        words = f"{_size(found)} ({points(least)} to {points(most)} with 95% confidence) {over}."
        judged = replace(found, verdict=verdict, needed=None, reason=words)
    return replace(judged, reason=f"{judged.reason} {_detectable(judged)}")


def _within(found: Change, margin: float, over: str) -> Change:
    seen, few = f"{_size(found)} {over}, within the noise", max(found.detectable, -found.low) >= margin
    remedy, needed = "", found.needed if few and _few(found) else None
    if found.seed_noise is None:
        more = f"about {needed} cases like these and 3 training seeds" if needed else "3 training seeds"
        remedy = f" of the cases, in one training. To tell takes {more}"
    elif not few:
        return replace(found, verdict=Verdict.UNCHANGED, needed=None, reason=f"{seen}.")
    elif found.seed_noise > found.case_noise:
        remedy, needed = ", most of it between training seeds. More seeds would tell, more cases would not", None
    elif needed:
        remedy = f". About {needed} cases like these would tell"
    return replace(found, needed=needed, reason=f"{seen}{remedy}.")


def _detectable(found: Change) -> str:
    if found.detectable >= 100:
        return "No drop, however large, would be found with 80% power."
    return f"Detectable with 80% power: a drop of {points(found.detectable)} points."


def _few(found: Change) -> bool:
    return found.needed is not None and found.cases < found.needed < MANY


def _size(found: Change) -> str:
    if not round(found.points, 1):
        return "No difference"
    return f"{points(abs(found.points))} points {'more' if found.points > 0 else 'less'}"


def points(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
