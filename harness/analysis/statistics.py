"""Statistics: confidence intervals, tests and sample sizes for pass rates and their differences.

Scores are an array `(seeds, cases)`: the results of several trainings on the same cases. These are not seeds x cases
independent trials, because a hard case is hard under every seed, and a bad seed is bad on every case. Therefore each
interval is the textbook interval for the *effective* number of cases, which is the number of independent cases with the
same information (as in survey statistics: Korn & Graubard, Survey Methodology 24, 1998). Cases of one `group` count as
one cluster.

Shares are between 0 and 1, not percentages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
"""`(seeds, cases)`, each between 0 and 1."""
Table = tuple[float, float, float, float]
"""Numbers (or shares) of the cases that passed in both runs, only before, only after, and in neither run."""
LEVEL = 0.95
"""Default confidence level."""
POWER = 0.8
"""Default power of a test."""
EXACT = 14
"""With at most this many differing clusters, the sign-flip test enumerates all patterns of signs (up to 2**14)."""
FINEST = 10_000
"""Changes of scores are rounded to this part of a case in the exact sign-flip test."""
DRAWS = 9_999
"""With more differing clusters than `EXACT`, the sign-flip test draws this many random patterns of signs."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval. `cases` is the effective number of cases, which the module explains."""

    value: float
    low: float
    high: float
    cases: float


# --- intervals ---------------------------------------------------------------------------------------------------


def wilson(share: float, cases: float, z: float) -> tuple[float, float]:
    """Return Wilson's score interval of a share seen in `cases` cases (JASA 22, 1927). `z` is the normal quantile."""
    if cases <= 0:
        return 0.0, 1.0
    centre = (share + z * z / (2 * cases)) / (1 + z * z / cases)
    half = z / (1 + z * z / cases) * math.sqrt(share * (1 - share) / cases + z * z / (4 * cases * cases))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def newcombe(table: Table, z: float) -> tuple[float, float]:
    """Return the interval of the difference between two pass rates on the same cases, after minus before.

    This is method 10 of Newcombe, Statistics in Medicine 17, 1998. Unlike a bootstrap interval, it is wider than 0 even
    if no case changed.
    """
    both, lost, won, _ = table
    n = sum(table)
    before, after = (both + lost) / n, (both + won) / n
    (low0, high0), (low1, high1) = wilson(before, n, z), wilson(after, n, z)
    phi = _correlation(table)
    difference = after - before
    below = _hypotenuse(after - low1, high0 - before, phi)
    above = _hypotenuse(high1 - after, before - low0, phi)
    return max(-1.0, difference - below), min(1.0, difference + above)


def _correlation(table: Table) -> float:
    """Return the correlation of both outcomes over the cases, with Newcombe's continuity correction if positive."""
    both, lost, won, neither = table
    product = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    if product <= 0:
        return 0.0
    excess = both * neither - lost * won
    half = sum(table) / 2
    return (max(0.0, excess - half) if excess > 0 else excess) / math.sqrt(product)


def _hypotenuse(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def rate(scores: Scores, groups: Sequence[str] | None = None, *, level: float = LEVEL) -> Interval:
    """Return the share that passed. The interval covers the choice of cases and the choice of training seeds."""
    _check(scores)
    share = float(scores.mean())
    noise = _noise(scores.mean(axis=0), [scores], groups)
    cases = noise.effective(share * (1 - share), scores.shape[1])
    low, high = wilson(share, cases, noise.quantile(level))
    return Interval(share, low, high, cases)


def difference(before: Scores, after: Scores, groups: Sequence[str] | None = None, *, level: float = LEVEL) -> Interval:
    """Return the difference between the shares that passed on the same cases, after minus before.

    Both arrays are `(seeds, cases)` with independent seeds, and hold passes (1) and failures (0). For continuous
    scores, use `bootstrap_difference`.
    """
    noise = noise_of_difference(before, after, groups)
    table = _table(before, after)
    discordant, moved = table[1] + table[2], table[2] - table[1]
    cases = noise.effective(discordant - moved * moved, before.shape[1])
    low, high = newcombe(_scaled(table, cases), noise.quantile(level))
    return Interval(moved, min(low, moved), max(high, moved), cases)


def idle_flips(before: Scores, after: Scores) -> float:
    """Return the share of cases whose changes cancel out, because as many cases were gained as were lost.

    This is the argument `discordance` of `detectable`.
    """
    _, lost, won, _ = _table(before, after)
    return 2 * min(lost, won)


def retrained(scores: Scores, *, level: float = LEVEL) -> Interval:
    """Return the share that passed. The interval covers the choice of training seeds, but takes the cases as fixed.

    It is Wilson's interval for cases x seeds trials, or for fewer if the seeds differ more than single answers would
    explain. It uses Student's quantile, because a few seeds give only a rough estimate of how much seeds differ.
    """
    _check(scores)
    seeds, cases = scores.shape
    share, trials = float(scores.mean()), float(seeds * cases)
    spread = float(scores.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    if spread > 0:
        trials = min(trials, max(2.0, share * (1 - share) / spread))
    low, high = wilson(share, trials, student(seeds - 1, level))
    return Interval(share, low, high, trials)


def retrained_difference(before: Scores, after: Scores, *, level: float = LEVEL) -> Interval:
    """Return the difference between the shares that passed, after minus before.

    The interval covers the choice of training seeds, but takes the cases as fixed. It is Student's interval for the
    means of independent seeds. With one seed in each run, the variation between seeds is unknown, so it is Newcombe's
    interval for independent shares (method 10, Statistics in Medicine 17, 1998). Both arrays are `(seeds, cases)`.
    """
    _check(before, after)
    freedom = len(before) + len(after) - 2
    old, new = float(before.mean()), float(after.mean())
    moved, z = new - old, student(freedom, level)
    if freedom:
        below = above = z * retraining_error(before, after)
    else:
        (low0, high0), (low1, high1) = (wilson(share, before.shape[1], z) for share in (old, new))
        below, above = _hypotenuse(new - low1, high0 - old, 0.0), _hypotenuse(high1 - new, old - low0, 0.0)
    return Interval(moved, max(-1.0, moved - below), min(1.0, moved + above), float(before.size + after.size))


def student(freedom: int, level: float) -> float:
    """Return Student's quantile for a two-sided level, or the normal quantile if there are no degrees of freedom."""
    if freedom < 1:
        return normal((1 + level) / 2)
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def _table(before: Scores, after: Scores) -> Table:
    """Return the shares of the four outcomes of a case (see `Table`), averaged over the cases."""
    was, now = before.mean(axis=0), after.mean(axis=0)
    shares = (was * now, was * (1 - now), (1 - was) * now, (1 - was) * (1 - now))
    both, lost, won, neither = (float(share.mean()) for share in shares)
    return both, lost, won, neither


def _scaled(table: Table, cases: float) -> Table:
    both, lost, won, neither = table
    return both * cases, lost * cases, won * cases, neither * cases


def bootstrap_difference(
    before: Scores,
    after: Scores,
    rng: np.random.Generator,
    groups: Sequence[str] | None = None,
    *,
    level: float = LEVEL,
    draws: int = 4_000,
) -> Interval:
    """Return the bootstrap interval of a difference of mean scores, from resampled clusters of cases.

    Seeds are too few to resample: with three seeds, a bootstrap captures only two thirds of the variance. Instead, the
    variance between seeds is added with Student's quantile, as in `Noise.quantile`.
    """
    _check(before, after)
    clusters = cluster_matrix(before.shape[1], groups)
    sizes = clusters.sum(axis=1)
    sums = clusters @ (after.mean(axis=0) - before.mean(axis=0))
    chosen = rng.integers(len(clusters), size=(draws, len(clusters)))
    means = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    value = float(after.mean() - before.mean())
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    seeds = noise_of_difference(before, after, groups).seeds
    square = sum(part * student(freedom, level) ** 2 for part, freedom in seeds)
    least, most = (math.sqrt(max(0.0, width) ** 2 + square) for width in (value - low, high - value))
    return Interval(value, value - least, value + most, float(len(clusters)))


# --- sources of noise --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """The variance of a mean over cases and seeds, by source.

    `seeds` has, for each run with several seeds, the variance between its seeds and the degrees of freedom.
    """

    cases: float
    seeds: tuple[tuple[float, int], ...] = ()
    clusters: int = 0

    @property
    def variance(self) -> float:
        return self.cases + sum(part for part, _ in self.seeds)

    def effective(self, variance_of_one: float, cases: int) -> float:
        """Return the effective number of cases, at most `cases`. Without noise, it is the number of clusters."""
        if self.variance <= 0 or variance_of_one <= 0:
            return float(self.clusters)
        return min(float(cases), max(2.0, variance_of_one / self.variance))

    def quantile(self, level: float) -> float:
        """Return the quantile by which the standard error is multiplied to get the half width of the interval.

        It combines the normal quantile for cases and Student's quantile for each run's seeds: the squared half width
        is the sum of the squared half widths of the sources (in the form of Graybill & Wang, JASA 75, 1980).
        Satterthwaite's degrees of freedom would give intervals that are too narrow for two or three seeds.
        """
        probability = (1 + level) / 2
        if not any(part > 0 for part, _ in self.seeds):
            return normal(probability)
        from scipy.special import stdtrit

        squares = normal(probability) ** 2 * self.cases
        squares += sum(part * float(stdtrit(freedom, probability)) ** 2 for part, freedom in self.seeds)
        return math.sqrt(squares / self.variance)

    @property
    def freedom(self) -> float:
        """Return Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946), or 1 if there is no noise."""
        if self.variance <= 0:
            return 1.0
        parts = [(self.cases, self.clusters - 1), *self.seeds]
        return max(1.0, self.variance**2 / sum(part * part / max(1, free) for part, free in parts))


@cache
def normal(probability: float) -> float:
    """Return the quantile of the standard normal distribution at this probability."""
    return NormalDist().inv_cdf(probability)


def noise_of_difference(before: Scores, after: Scores, groups: Sequence[str] | None = None) -> Noise:
    """Split the uncertainty of `difference` into the noise of the cases and the noise of each run's seeds."""
    _check(before, after)
    return _noise(after.mean(axis=0) - before.mean(axis=0), [before, after], groups)


def _noise(means: Scores, sides: Sequence[Scores], groups: Sequence[str] | None) -> Noise:
    """Return the noise of the mean of `means`. `means` has one value per case, averaged over the seeds of each run."""
    clusters = cluster_matrix(len(means), groups)
    deviations = clusters @ (means - means.mean())
    number = len(clusters)
    # Few clusters understate their variance by (G-1)/G. Without groups there is no correction, as in Wilson's interval.
    correction = number / max(1, number - 1) if number < len(means) else 1.0
    of_cases = correction * float((deviations**2).sum()) / len(means) ** 2
    spreads = [seed_variance(side) for side in sides]
    of_seeds = tuple((max(0.0, spread.value), spread.freedom) for spread in spreads if spread.freedom)
    return Noise(of_cases, of_seeds, number)


@dataclass(frozen=True)
class SeedVariance:
    """The variance of a variant's pass rate from the choice of training seeds, with its degrees of freedom.

    The variance can be negative, because the part that the variation of single answers explains is subtracted.
    """

    value: float
    freedom: int


ONE_SEED = SeedVariance(0.0, 0)
"""The variance between seeds is unknown. The bounds then hold for this training only."""


def seed_variance(scores: Scores) -> SeedVariance:
    """Return the variance of the mean of `scores`, `(seeds, cases)`, from the choice of seeds."""
    seeds, cases = scores.shape
    if seeds < 2 or cases < 2:
        return ONE_SEED
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    explained = float((rest**2).sum()) / ((seeds - 1) * (cases - 1)) / (seeds * cases)
    return SeedVariance(float(scores.mean(axis=1).var(ddof=1)) / seeds - explained, seeds - 1)


def cluster_matrix(cases: int, groups: Sequence[str] | None) -> Scores:
    """Return a matrix `(clusters, cases)` with 1 for each case of a cluster. A case without a group is a cluster."""
    names = [name or f"\0{i}" for i, name in enumerate(groups or [""] * cases)]
    if len(names) != cases:
        raise ValueError(f"there are {cases} cases, but {len(names)} groups; give one group for each case")
    index = {name: i for i, name in enumerate(dict.fromkeys(names))}
    table = np.zeros((len(index), cases))
    table[[index[name] for name in names], range(cases)] = 1.0
    return table


# --- tests -------------------------------------------------------------------------------------------------------


def sign_flip(before: Scores, after: Scores, rng: np.random.Generator, groups: Sequence[str] | None = None) -> float:
    """Return the one-sided p-value of the sign-flip test of whether `after` is worse than `before`.

    The test uses each case's mean over seeds. Without a real change, the difference of each cluster of cases is equally
    likely to have either sign. With at most `EXACT` differing clusters, all patterns of signs are enumerated (Fisher
    1935). Otherwise `DRAWS` random patterns are drawn (with the correction of Phipson & Smyth 2010, which adds 1 to
    both counts).
    """
    _check(before, after)
    changes = cluster_matrix(before.shape[1], groups) @ (after.mean(axis=0) - before.mean(axis=0))
    changes = changes[np.abs(changes) > 1e-12]
    if not len(changes):
        return 1.0
    threshold = changes.sum() + 1e-9
    if len(changes) <= EXACT:
        patterns = (np.arange(2 ** len(changes))[:, None] >> np.arange(len(changes))) & 1
        return float(((1 - 2 * patterns) @ changes <= threshold).mean())
    signs = rng.integers(0, 2, size=(DRAWS, len(changes)), dtype=np.int8)
    return float((1 + np.count_nonzero((1.0 - 2.0 * signs) @ changes <= threshold)) / (1 + DRAWS))


def exact_sign_flip(before: Scores, after: Scores, groups: Sequence[str] | None = None) -> float:
    """Return the exact one-sided p-value of the sign-flip test of whether `after` is better than `before`.

    It is the test of `sign_flip`, without random draws however many clusters differ: scores of cases are fractions, so
    all changes are multiples of one unit, and the distribution of their sum is computed by adding one change after
    another. It serves levels so small that random draws would be too coarse. Units below 1 / `FINEST` are rounded.
    """
    _check(before, after)
    changes = cluster_matrix(before.shape[1], groups) @ (after.mean(axis=0) - before.mean(axis=0))
    parts = [Fraction(change).limit_denominator(FINEST).denominator for change in changes]
    unit = min(FINEST, math.lcm(*parts))
    counts = [count for change in changes if (count := round(change * unit))]
    total, moved = sum(map(abs, counts)), sum(counts)
    chance = np.zeros(total + 1)
    chance[0] = 1.0
    for size in map(abs, counts):
        chance[size:] = (chance[size:] + chance[: total + 1 - size]) / 2
        chance[:size] /= 2
    # The sum of the signed changes is 2 x (the positive ones) - total.
    return min(1.0, float(chance[(total + moved) // 2 :].sum()))


def retraining_error(before: Scores, after: Scores) -> float:
    """Return the standard error of the difference of two means on these cases, from the variation between seeds.

    A few seeds can agree by chance. Therefore the variation is assumed to be at least that of one case that changes
    under one seed.
    """
    _check(before, after)
    seeds = len(before) + len(after)
    squares = sum(float(((side.mean(axis=1) - side.mean()) ** 2).sum()) for side in (before, after))
    one_flip = 1 / before.shape[1] ** 2
    return math.sqrt(max(squares, one_flip) / max(1, seeds - 2) * (1 / len(before) + 1 / len(after)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values to control the family-wise error rate (Holm, Scand. J. Statist. 6, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def detectable(cases: float, discordance: float, *, alpha: float = 0.05, power: float = POWER) -> float:
    """Return the smallest drop of a share that a one-sided paired test on `cases` cases detects with this power.

    `discordance` is the share of cases that change without a real effect. A drop of the share by x changes at least the
    share x of the cases (Connor, Biometrics 43, 1987, formula 2).
    """
    low, high = 0.0, 1.0
    if cases <= 0 or _power(1.0, cases, discordance, alpha) < power:
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if _power(middle, cases, discordance, alpha) >= power:
            high = middle
        else:
            low = middle
    return high


def _power(drop: float, cases: float, discordance: float, alpha: float) -> float:
    flipping = min(1.0, max(discordance + drop, drop))
    spread = math.sqrt(max(1e-12, flipping - drop * drop))
    reach = drop * math.sqrt(cases) - normal(1 - alpha) * math.sqrt(flipping)
    return NormalDist().cdf(reach / spread)


def cases_needed(drop: float, discordance: float, *, alpha: float = 0.05, power: float = POWER) -> int:
    """Return the number of cases with which this drop is detected with this power: the inverse of `detectable`."""
    flipping = min(1.0, discordance + drop)
    total = normal(1 - alpha) * math.sqrt(flipping) + normal(power) * math.sqrt(max(0.0, flipping - drop * drop))
    return math.ceil((total / drop) ** 2)


def _check(*sides: Scores) -> None:
    if any(side.ndim != 2 or 0 in side.shape for side in sides):
        raise ValueError("scores must be arrays of shape (seeds, cases), with at least one seed and one case")
    if len({side.shape[1] for side in sides}) > 1:
        raise ValueError("both arrays of scores must have the same cases")
