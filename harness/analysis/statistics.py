"""Numbers and an explicit generator to intervals and tests: what may be said about pass rates and their differences.

Scores come as an array `(seeds, cases)`: what each of several trainings made of the same cases. A rate over them is not
that of seeds x cases independent trials: a hard case is hard under every seed, and a bad seed is bad at every case. So
each interval is the textbook's for as many *independent* cases as carry the same information (the effective number of
survey statistics: Korn & Graubard, Survey Methodology 24, 1998). Cases of one `group` count as one cluster.

Shares are between 0 and 1, never points of a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
"""`(seeds, cases)`, each between 0 and 1."""
Table = tuple[float, float, float, float]
"""Cases (or shares of them) passed both times, only before, only after, and neither time."""
LEVEL = 0.95
POWER = 0.8
EXACT = 14
"""Up to this many differing clusters the sign-flip test counts every pattern of signs: 2**14 of them."""
DRAWS = 9_999


@dataclass(frozen=True)
class Interval:
    """An estimate with what it is compatible with; `cases` is the effective number of independent ones."""

    value: float
    low: float
    high: float
    cases: float


# --- intervals ---------------------------------------------------------------------------------------------------


def wilson(share: float, cases: float, z: float) -> tuple[float, float]:
    """Score interval of a share seen in so many cases (Wilson, JASA 22, 1927); `z` is the normal quantile."""
    if cases <= 0:
        return 0.0, 1.0
    centre = (share + z * z / (2 * cases)) / (1 + z * z / cases)
    half = z / (1 + z * z / cases) * math.sqrt(share * (1 - share) / cases + z * z / (4 * cases * cases))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def newcombe(table: Table, z: float) -> tuple[float, float]:
    """Interval of the difference of two shares of the same cases, after less before.

    Newcombe, Statistics in Medicine 17, 1998, method 10. Unlike a bootstrap it has a width even where nothing flipped.
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
    """Of the two outcomes over the cases, shrunk by half a case where it is positive."""
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
    """Share passed over cases and seeds, for the population of cases and of trainings that these were drawn from."""
    _check(scores)
    share = float(scores.mean())
    noise = _noise(scores.mean(axis=0), [scores], groups)
    cases = noise.effective(share * (1 - share), scores.shape[1])
    low, high = wilson(share, cases, noise.quantile(level))
    return Interval(share, low, high, cases)


def difference(before: Scores, after: Scores, groups: Sequence[str] | None = None, *, level: float = LEVEL) -> Interval:
    """Share passed after less before, on the same cases: `(seeds, cases)` each, their seeds unrelated.

    For passes and failures; continuous scores go to `bootstrap_difference`.
    """
    noise = noise_of_difference(before, after, groups)
    table = _table(before, after)
    discordant, moved = table[1] + table[2], table[2] - table[1]
    cases = noise.effective(discordant - moved * moved, before.shape[1])
    low, high = newcombe(_scaled(table, cases), noise.quantile(level))
    return Interval(moved, min(low, moved), max(high, moved), cases)


def idle_flips(before: Scores, after: Scores) -> float:
    """Share of cases that differ beyond those that the difference itself takes: the `discordance` of `detectable`."""
    _, lost, won, _ = _table(before, after)
    return 2 * min(lost, won)


def retrained(scores: Scores, *, level: float = LEVEL) -> Interval:
    """Share passed on these very cases, for other trainings: the cases are given, the seeds were drawn.

    Wilson's interval for as many trials as there are cases times seeds, fewer where the seeds differ by more than
    single answers do; with Student's quantile for the seeds, since so few of them tell how much they differ.
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
    """Share passed after less before on these very cases, for other trainings: `(seeds, cases)` each.

    Student's interval for the means of both sides' seeds, which share no draws, whatever they are called. One seed a
    side says nothing of others: then Newcombe's method 10 for independent shares (Statistics in Medicine 17, 1998).
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
    """Student's quantile; the normal one where one seed on each side says nothing of how seeds differ."""
    if freedom < 1:
        return normal((1 + level) / 2)
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def _table(before: Scores, after: Scores) -> Table:
    """Mean shares over the cases."""
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
    """Interval of a difference of means of continuous scores: clusters of cases are drawn again.

    Seeds are too few for that (of three, two thirds of the variance would be left): theirs is added by Student's
    quantile, as in `Noise.quantile`.
    """
    _check(before, after)
    clusters = _clusters(before.shape[1], groups)
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


# --- where the noise comes from ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """Variance of a mean over cases and seeds, by source; of the seeds of each side, with its degrees of freedom."""

    cases: float
    seeds: tuple[tuple[float, int], ...] = ()
    clusters: int = 0

    @property
    def variance(self) -> float:
        return self.cases + sum(part for part, _ in self.seeds)

    def effective(self, variance_of_one: float, cases: int) -> float:
        """How many independent cases would leave as much noise; never more than there are, nor than clusters if 0."""
        if self.variance <= 0 or variance_of_one <= 0:
            return float(self.clusters)
        return min(float(cases), max(2.0, variance_of_one / self.variance))

    def quantile(self, level: float) -> float:
        """Of the sum: the normal one for cases, Student's for each side's seeds, by their shares of the variance.

        The half width is thus the root of the sum of the squares of the half widths that each source would have alone.
        Satterthwaite's degrees of freedom, taken from the estimated shares, are too many for two or three seeds.
        (Graybill & Wang, JASA 75, 1980, for the form.)
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
        """Degrees of freedom of the sum (Satterthwaite, Biometrics Bulletin 2, 1946); 1 where there is no noise."""
        if self.variance <= 0:
            return 1.0
        parts = [(self.cases, self.clusters - 1), *self.seeds]
        return max(1.0, self.variance**2 / sum(part * part / max(1, free) for part, free in parts))


@cache
def normal(probability: float) -> float:
    """The standard normal distribution's quantile."""
    return NormalDist().inv_cdf(probability)


def noise_of_difference(before: Scores, after: Scores, groups: Sequence[str] | None = None) -> Noise:
    """Where the uncertainty of `difference` comes from: the cases, and the seeds of either side that has several."""
    _check(before, after)
    return _noise(after.mean(axis=0) - before.mean(axis=0), [before, after], groups)


def _noise(means: Scores, sides: Sequence[Scores], groups: Sequence[str] | None) -> Noise:
    """Noise of the mean of `means` (one per case), which average over the seeds of every side."""
    clusters = _clusters(len(means), groups)
    deviations = clusters @ (means - means.mean())
    number = len(clusters)
    # Few clusters understate their variance by (G-1)/G; n cases on their own are to count as n, as Wilson has it.
    correction = number / max(1, number - 1) if number < len(means) else 1.0
    of_cases = correction * float((deviations**2).sum()) / len(means) ** 2
    of_seeds = tuple(part for side in sides if (part := _seed_noise(side)))
    return Noise(of_cases, of_seeds, number)


def _seed_noise(scores: Scores) -> tuple[float, int] | None:
    """Variance of the mean that comes from the choice of seeds, beyond what their cases' own noise explains."""
    seeds, cases = scores.shape
    if seeds < 2 or cases < 2:
        return None
    between = float(scores.mean(axis=1).var(ddof=1)) / seeds
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    explained = float((rest**2).sum()) / ((seeds - 1) * (cases - 1)) / (seeds * cases)
    return max(0.0, between - explained), seeds - 1


def _clusters(cases: int, groups: Sequence[str] | None) -> Scores:
    """`(clusters, cases)`, 1 where a case belongs to a cluster; an empty name is a cluster of its own."""
    names = [name or f"\0{i}" for i, name in enumerate(groups or [""] * cases)]
    if len(names) != cases:
        raise ValueError(f"{cases} cases and {len(names)} groups")
    index = {name: i for i, name in enumerate(dict.fromkeys(names))}
    table = np.zeros((len(index), cases))
    table[[index[name] for name in names], range(cases)] = 1.0
    return table


# --- tests -------------------------------------------------------------------------------------------------------


def sign_flip(before: Scores, after: Scores, rng: np.random.Generator, groups: Sequence[str] | None = None) -> float:
    """One-sided p-value of `after` being worse than `before`, from per-case means over seeds.

    If nothing has changed, each cluster's difference is as likely to have the other sign. Up to `EXACT` clusters that
    differ every pattern of signs is counted, beyond that `DRAWS` drawn ones (Fisher 1935; for the 1 that is added to
    both, Phipson & Smyth 2010).
    """
    _check(before, after)
    changes = _clusters(before.shape[1], groups) @ (after.mean(axis=0) - before.mean(axis=0))
    changes = changes[np.abs(changes) > 1e-12]
    if not len(changes):
        return 1.0
    threshold = changes.sum() + 1e-9
    if len(changes) <= EXACT:
        patterns = (np.arange(2 ** len(changes))[:, None] >> np.arange(len(changes))) & 1
        return float(((1 - 2 * patterns) @ changes <= threshold).mean())
    signs = rng.integers(0, 2, size=(DRAWS, len(changes)), dtype=np.int8)
    return float((1 + np.count_nonzero((1.0 - 2.0 * signs) @ changes <= threshold)) / (1 + DRAWS))


def retraining_error(before: Scores, after: Scores) -> float:
    """Standard error of the difference of two means on these cases, from how the seeds of both sides differ.

    Few seeds can agree by chance: they are taken to differ by no less than one case under one seed.
    """
    _check(before, after)
    seeds = len(before) + len(after)
    squares = sum(float(((side.mean(axis=1) - side.mean()) ** 2).sum()) for side in (before, after))
    one_flip = 1 / before.shape[1] ** 2
    return math.sqrt(max(squares, one_flip) / max(1, seeds - 2) * (1 / len(before) + 1 / len(after)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that hold the chance of any false alarm among them (Holm, Scand. J. Statist. 6, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class NonInferiority:
    """Whether a loss is shown to be smaller than a margin. `needed`: how many cases would show it at this loss."""

    loss: float
    upper: float
    margin: float
    cases: float
    needed: int | None

    @property
    def shown(self) -> bool:
        return self.upper < self.margin


def non_inferiority(
    before: Scores, after: Scores, margin: float, groups: Sequence[str] | None = None, *, level: float = LEVEL
) -> NonInferiority:
    """The upper one-sided bound of what was lost, against the margin."""
    # A one-sided bound at 95% is the end of a two-sided interval at 90%.
    found = difference(before, after, groups, level=2 * level - 1)
    table = _table(before, after)
    loss = -found.value
    return NonInferiority(loss, -found.low, margin, found.cases, _needed(table, loss, margin, 2 * level - 1))


def _needed(table: Table, loss: float, margin: float, level: float) -> int | None:
    """The smallest number of cases that would show it if they went on like these; None when no number would."""
    if loss >= margin:
        return None
    z = normal((1 + level) / 2)
    enough = 2
    while -newcombe(_scaled(table, enough), z)[0] >= margin:
        enough *= 2
        if enough > 10**6:
            return None
    low = enough // 2
    while enough - low > 1:
        middle = (low + enough) // 2
        below = -newcombe(_scaled(table, middle), z)[0] < margin
        low, enough = (low, middle) if below else (middle, enough)
    return enough


def detectable(cases: float, discordance: float, *, alpha: float = 0.05, power: float = POWER) -> float:
    """The smallest drop of a share that a one-sided paired test on so many cases finds with this power.

    `discordance` is the share of cases that flip without any real change; a drop flips at least as many as its size
    (Connor, Biometrics 43, 1987, formula 2).
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
    """How many cases find such a drop with this power: `detectable` the other way round."""
    flipping = min(1.0, discordance + drop)
    total = normal(1 - alpha) * math.sqrt(flipping) + normal(power) * math.sqrt(max(0.0, flipping - drop * drop))
    return math.ceil((total / drop) ** 2)


def _check(*sides: Scores) -> None:
    if any(side.ndim != 2 or 0 in side.shape for side in sides):
        raise ValueError("scores are (seeds, cases), with at least one of each")
    if len({side.shape[1] for side in sides}) > 1:
        raise ValueError("both sides answer the same cases")
