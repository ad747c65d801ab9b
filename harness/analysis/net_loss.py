"""Net loss: how much of what the base model could do a variant can no longer do, with bounds, verdict and sample size.

All cases count, whatever the base model answered. With B and V the pass rates of the base model and of the variant on
the same cases, the net loss is `1 - V / B`, as a share of what the base model passes. Counting only the cases that the
base model passed would turn luck into loss: some of its passes are lucky, and a variant that is exactly as good fails
some of them.

The target is ability: the pass rates on cases like these, under trainings like these. Therefore a variant that is as
good as the base model has the net loss 0, and the bounds include the base model's own luck.

The bounds join two sets of losses l that the scores do not rule out:

1. Fieller's (Journal of the Royal Statistical Society B 16, 1954). The residual `(1 - l) X - Y` of a case, with X and Y
   the results of the base model and of the variant, has the mean 0 at the true l. A loss l is not ruled out if the
   mean residual is within its standard error times Student's quantile. Cases of one `group` count as one cluster.
2. A floor. To lose the share l, a variant must break at least that share of the base model's passes, so the variance
   under this hypothesis is at least that of a share l of them (as in Wilson's interval). Without it, a variant without
   a single changed answer would have an interval of width 0. Cases of a group are rewordings of one question, and may
   all break together: groups that did not break say no more than as many single cases.

Both contain the variance between the variant's own seeds, with its own Student's quantile. This variance is not pooled
over the variants of a run, because one diverged variant would then hide that the others keep what the base model can
do, and stable variants would make an unstable one look safe. `tests/studies/placebos.py` checks coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist

from harness.analysis.statistics import LEVEL, Scores, SeedVariance, cluster_matrix, normal, seed_variance, student

ASSUMED_CORRELATION = 0.25
"""Assumed correlation of results within a group, for `chance_shown`."""
LEAST_DESIGN_EFFECT = 1.2
"""Least design effect of the floor. It makes the bound of a variant without any change that of the exact binomial."""
TWO_SIDED = (1 + LEVEL) / 2
"""Level of each end of a two-sided 95% interval."""
MAX_CASES = 100_000
"""No larger number of cases is suggested."""
CONCENTRATION = 4.0
"""Assumed concentration of the beta distribution of the cases' pass probabilities, for `chance_shown`."""


@dataclass(frozen=True)
class NetLoss:
    """A net loss as a share of what the base model passes, and its one-sided bounds. A net gain is negative."""

    value: float
    low: float
    high: float


def net_loss(
    base: Scores,
    variant: Scores,
    groups: Sequence[str] | None = None,
    *,
    level: float = LEVEL,
) -> NetLoss | None:
    """Return the net loss, or None if the base model passes no case.

    Args:
        base: results of the base model, `(repeats, cases)`, from 0 to 1.
        variant: results of the variant, `(seeds, cases)`, from 0 to 1.
        groups: the group of each case. Cases of one group are not independent.
        level: level of each one-sided bound. A two-sided 95% interval has bounds at 0.975.
    """
    if base.mean() <= 0:
        return None
    return _moments(base, variant, groups).bounds(level)


@dataclass(frozen=True)
class _Moments:
    """The pass rates of the base model and the variant, with their variances and covariance over clusters of cases."""

    base: float
    variant: float
    base_variance: float
    covariance: float
    variant_variance: float
    seeds: SeedVariance
    cases: float
    clusters: float
    """Number of groups of equal size with the same information, for the degrees of freedom."""
    effect: float
    """Design effect of the floor."""

    def with_cases(self, cases: float) -> _Moments:
        """Return the moments of this number of similar cases."""
        times = cases / self.cases
        return replace(
            self,
            base_variance=self.base_variance / times,
            covariance=self.covariance / times,
            variant_variance=self.variant_variance / times,
            cases=cases,
            clusters=self.clusters * times,
        )

    def bounds(self, level: float) -> NetLoss:
        ratio = self.variant / self.base
        if self.clusters < 2:
            return NetLoss(1 - ratio, -math.inf, 1.0)
        of_cases = student(int(self.clusters) - 1, 2 * level - 1) ** 2
        of_seeds = student(self.seeds.freedom, 2 * level - 1) ** 2 * max(0.0, self.seeds.value)
        kept = [self._fieller(of_cases, of_seeds)]
        kept += _floor(ratio, of_cases * self.effect / (self.cases * self.base), of_seeds / self.base**2)
        low, high = 1 - max(high for _, high in kept), 1 - min(low for low, _ in kept)
        # A variant that passes every case keeps 1 / B of what the base passes. If an end is beyond this and beyond
        # twice what the base passes, the base passes too few cases to limit a gain.
        return NetLoss(1 - ratio, low if low >= min(-1.0, 1 - 1 / self.base) else -math.inf, high)

    def _fieller(self, of_cases: float, of_seeds: float) -> tuple[float, float]:
        """Return the least and the greatest ratio V / B that the residuals do not rule out.

        `of_cases` is the squared quantile for the variance over cases, `of_seeds` the variance between seeds times its
        squared quantile. The ratios are the roots of a quadratic equation.
        """
        square = self.base**2 - of_cases * self.base_variance
        cross = self.base * self.variant - of_cases * self.covariance
        constant = self.variant**2 - of_cases * self.variant_variance - of_seeds
        if square <= 0:  # the base model passes too few cases to rule out any ratio
            return 0.0, math.inf
        root = math.sqrt(max(0.0, cross**2 - square * constant))
        return max(0.0, (cross - root) / square), (cross + root) / square


def _moments(base: Scores, variant: Scores, groups: Sequence[str] | None) -> _Moments:
    cases = base.shape[1]
    of = cluster_matrix(cases, groups)
    x, y = base.mean(axis=0), variant.mean(axis=0)
    before, after = float(x.mean()), float(y.mean())
    x, y = of @ (x - before), of @ (y - after)
    scale = len(of) / max(1, len(of) - 1) / cases**2
    return _Moments(
        base=before,
        variant=after,
        base_variance=scale * float(x @ x),
        covariance=scale * float(x @ y),
        variant_variance=scale * float(y @ y),
        seeds=seed_variance(variant),
        cases=cases,
        clusters=cases / mean_group(groups, cases),
        effect=design_effect(base, groups),
    )


def _floor(ratio: float, width: float, of_seeds: float) -> list[tuple[float, float]]:
    """Return the ranges of ratios V / B that the floor does not rule out: those of a loss, then those of a net gain.

    `width` is the squared quantile divided by the effective number of cases that the base model passes.
    """
    ranges = []
    root = (2 * ratio + width) ** 2 - 4 * (1 + width) * (ratio**2 - of_seeds)
    if root >= 0:
        ends = [(2 * ratio + width + sign * math.sqrt(root)) / (2 * (1 + width)) for sign in (-1, 1)]
        ranges += [(max(0.0, end), end) for end in ends if end <= 1]
    root = (2 * ratio + width) ** 2 - 4 * (ratio**2 + width - of_seeds)
    if root >= 0:  # to gain a share of what the base model passes, at least that share must be fixed
        end = (2 * ratio + width + math.sqrt(root)) / 2
        ranges.append((end, end))
    return ranges


def design_effect(base: Scores, groups: Sequence[str] | None = None) -> float:
    """Return by how much the variance of the floor increases if whole groups break together.

    It is the mean number of base passes in the group of a case that the base model passes.
    """
    passes = cluster_matrix(base.shape[1], groups) @ base.mean(axis=0)
    return max(LEAST_DESIGN_EFFECT, float((passes**2).sum() / passes.sum())) if passes.any() else LEAST_DESIGN_EFFECT


def mean_group(groups: Sequence[str] | None, cases: int) -> float:
    """Return the mean number of cases in the group of a case (a case without a group has 1)."""
    sizes = cluster_matrix(cases, groups).sum(axis=1)
    return float((sizes**2).sum()) / cases if cases else 1.0


# --- how many cases ----------------------------------------------------------------------------------------------


def least_passes(margin: float, effect: float = LEAST_DESIGN_EFFECT) -> int:
    """Return how many cases the base model must pass, before even a variant that breaks none is shown to keep them.

    Args:
        margin: the largest loss allowed, as a share of what the base model passes.
        effect: the design effect of groups, from `design_effect`.
    """
    return math.ceil(effect * normal(LEVEL) ** 2 * (1 - margin) / margin)


def chance_shown(
    cases: int,
    base: float,
    margin: float,
    *,
    seeds: int = 3,
    loss: float = 0.0,
    group: float = 1.0,
    level: float = LEVEL,
) -> float:
    """Return the probability that a variant with this true `loss` is shown to lose less than `margin`.

    It is a normal approximation for cases whose pass probabilities have a beta distribution with the mean `base` and
    the concentration `CONCENTRATION`, without differences between seeds. The bounds contain an estimate of these
    differences, which is not 0: the probability is the mean over its distribution. `tests/studies/placebos.py` compares
    the approximation with simulated runs.

    Args:
        cases: number of cases.
        base: the base model's pass rate.
        margin: the largest loss allowed, as a share of what the base model passes.
        seeds: number of training seeds of the variant.
        loss: the variant's true loss, as a share of what the base model passes.
        group: mean number of cases in the group of a case.
        level: level of the one-sided upper bound that must be below `margin`.
    """
    return _chance(cases, base, margin, loss, seeds, group, level, below=True)


def chance_noticed(
    cases: int,
    base: float,
    loss: float,
    *,
    seeds: int = 3,
    group: float = 1.0,
    level: float = TWO_SIDED,
) -> float:
    """Return the probability that a variant with this true `loss` is shown to lose something.

    It is so if the lower bound of its loss at this level is above 0. The approximation and the arguments are those of
    `chance_shown`.
    """
    return _chance(cases, base, 0.0, loss, seeds, group, level, below=False)


def _chance(
    cases: int, base: float, margin: float, loss: float, seeds: int, group: float, level: float, *, below: bool
) -> float:
    """Return the probability that a variant with this true `loss` is shown to be below, or else above, `margin`."""
    if not cases or base <= 0:
        return 0.0
    common = base * (1 - base) / (CONCENTRATION + 1)
    luck = base * (1 - base) - common
    keep, ratio = 1 - margin, 1 - loss
    answers = ratio * base - ratio**2 * (common + base**2)  # mean of p (1 - p) of the variant's pass probabilities p
    residual = keep**2 * (common + luck) + ratio**2 * common + answers / seeds - 2 * keep * ratio * common
    effect = 1 + ASSUMED_CORRELATION * (group - 1)
    error = max(effect * residual / cases, 1e-12)  # 0 if the base model passes all cases
    passing_too = base + ASSUMED_CORRELATION * (1 - base)  # chance that the base passes another case of such a group
    floor = max(LEAST_DESIGN_EFFECT, 1 + (group - 1) * passing_too) * margin * keep * base / cases
    clusters = max(2, int(cases / group))
    width = student(clusters - 1, 2 * level - 1) ** 2 * max(error, floor)
    between = [max(0.0, effect * each - 1) * answers / (seeds * cases) for each in _estimates(seeds - 1)]
    quantile = student(seeds - 1, 2 * level - 1) ** 2
    surplus, normal_of = ((margin - loss) if below else (loss - margin)) * base, NormalDist().cdf
    chances = [normal_of((surplus - math.sqrt(width + quantile * each)) / math.sqrt(error)) for each in between]
    return sum(chances) / len(chances)


@cache
def _estimates(freedom: int) -> tuple[float, ...]:
    """Return equally likely ratios of an estimated variance to the true one. Without estimate, return a ratio of 0."""
    if freedom < 1:
        return (0.0,)
    from scipy.special import gammaincinv

    return tuple(float(gammaincinv(freedom / 2, (n + 0.5) / 32)) * 2 / freedom for n in range(32))


def cases_to_show(
    base: float,
    margin: float,
    *,
    power: float = 0.8,
    seeds: int = 3,
    group: float = 1.0,
) -> int | None:
    """Return how many cases show, with this power, that a variant without loss loses less than `margin`."""

    def shown(cases: int) -> bool:
        return chance_shown(cases, base, margin, seeds=seeds, group=group) >= power

    low, high = 1, MAX_CASES
    if not shown(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle + 1, high)
    return low


def cases_needed(
    base: Scores,
    variant: Scores,
    margin: float,
    groups: Sequence[str] | None = None,
    *,
    level: float = LEVEL,
) -> int | None:
    """Return how many cases like these would show this very net loss to be below `margin`.

    Return None if no number of cases would: the loss reaches the margin, or the variance between seeds is too large.
    """
    if base.mean() <= 0 or 1 - variant.mean() / base.mean() >= margin:
        return None
    moments = _moments(base, variant, groups)
    low, high = 1, MAX_CASES
    if moments.with_cases(high).bounds(level).high >= margin:
        return None
    while low < high:
        middle = (low + high) // 2
        if moments.with_cases(middle).bounds(level).high >= margin:
            low = middle + 1
        else:
            high = middle
    return low
