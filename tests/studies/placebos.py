"""Simulates variants of known net loss, and counts what the bounds of `harness.analysis.net_loss` say of them.

    python -m tests.studies.placebos --processes 12 --output reports/studies/placebos.json     (15 minutes of one core)

The pass probabilities of the cases are drawn from a beta distribution, and base model and variant answer independently
of each other, given these probabilities. In groups of cases, the probabilities and the results are correlated. A
variant of net loss 0 is a placebo. A loss is `weaker` (all cases get harder by the same log-odds), `broken` (a share of
the cases always fails, and cases of a group break together more often), or `whole` (a share of the groups always
fails).

Beside the rule are the rule that counted only the cases that the base model passed, and alternatives: the interval of
the difference of the pass rates (Newcombe), divided by the base model's pass rate; a weaker assumption about groups;
and the variance between seeds pooled over the variants of a run, of which some may be unlike the others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv, expit, fdtri, gammaincinv, logit, ndtr, stdtrit

from harness.analysis import statistics
from harness.analysis.net_loss import (
    LEAST_DESIGN_EFFECT,
    TWO_SIDED,
    cases_to_show,
    chance_shown,
    least_passes,
    mean_group,
    net_loss,
)
from harness.storage.files import write_text

Floats = NDArray[np.float64]
BETAS = ((0.5, 0.5), (2.0, 2.0), (5.0, 5.0), (19.0, 1.0))
CASES = (20, 52, 200)
MARGINS = (0.10, 0.15)
LOSSES = (0.0, 0.10, 0.15, 0.20)
KINDS = ("weaker", "broken")
SEEDS = ((1, 0.0), (3, 0.0), (3, 0.25), (1, 0.25))
"""Number of seeds, and the standard deviation, in log-odds, of a seed's effect on every case."""
CORRELATION = 0.4
"""Correlation within a group, of normal variables behind probabilities, results and breaking. For results at a chance
of a half, this is a correlation of 0.26."""
LEVELS = 1 << 14
"""The distribution of probabilities is represented by this many equally likely values."""
CHUNK = 2_000
SIZES = (2, 3, 4, 5)
"""Sizes of the groups of a grouped design, in turn."""
VARIANTS = 8
"""Number of variants of a run, in the part of the study about unlike variants."""


# --- simulated runs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """What is simulated: the cases' pass probabilities, their number, their groups, and the seeds of the variant."""

    beta: tuple[float, float]
    cases: int
    seeds: int = 3
    spread: float = 0.0
    sizes: tuple[int, ...] = ()
    """Sizes of the groups, in turn; empty without groups."""

    @property
    def groups(self) -> list[str] | None:
        """The group of each case, or None without groups."""
        return _group_names(self.cases, self.sizes) if self.sizes else None

    @property
    def member(self) -> NDArray[np.intp]:
        """The number of each case's group."""
        return np.unique(self.groups, return_inverse=True)[1] if self.sizes else np.arange(self.cases)

    @property
    def base(self) -> float:
        return self.beta[0] / sum(self.beta)

    def described(self) -> dict[str, Any]:
        groups = "2 to 5" if self.sizes == SIZES else ", ".join(map(str, self.sizes)) or "none"
        return {"beta": list(self.beta), "cases": self.cases, "seeds": self.seeds, "spread": self.spread,
                "groups": groups}  # fmt: skip


def _group_names(cases: int, sizes: tuple[int, ...]) -> list[str]:
    names: list[str] = []
    for number, size in enumerate(cycle(sizes)):
        if len(names) >= cases:
            return names[:cases]
        names += [f"g{number}"] * size
    return names


@dataclass(frozen=True)
class Draws:
    """Simulated runs without the results of a variant, which depend on its loss."""

    design: Design
    base: NDArray[np.bool_]
    """(draws, cases)"""
    ability: NDArray[np.intp]
    """Position of each case's probability in `probabilities`, (draws, cases)."""
    luck: Floats
    """(draws, seeds, cases), uniform"""
    shift: Floats
    """Effect of each seed, (draws, seeds)."""
    breaking: Floats
    """(draws, cases), uniform"""

    def variant(self, loss: float, kind: str) -> NDArray[np.bool_]:
        """Return the results of a variant with this net loss, (draws, seeds, cases)."""
        odds = odds_of(self.design.beta, loss if kind == "weaker" else 0.0, self.design.spread)
        if self.design.spread:
            passes = self.luck < expit(odds[self.ability][:, None] + self.shift[:, :, None])
        else:
            passes = self.luck < expit(odds)[self.ability][:, None]
        if kind == "weaker":
            return passes
        breaking = self.breaking
        if kind == "whole":  # each group breaks if its first case does
            member = self.design.member
            breaking = breaking[:, np.unique(member, return_index=True)[1][member]]
        return passes & (breaking >= loss)[:, None]


def draw(rng: np.random.Generator, design: Design, draws: int) -> Draws:
    shape, seeds = (draws, design.cases), design.seeds
    ability = (uniform(rng, design, shape) * LEVELS).astype(np.intp).clip(max=LEVELS - 1)
    base = uniform(rng, design, shape) < probabilities(design.beta)[ability]
    luck = uniform(rng, design, (draws, seeds, design.cases))
    shift = rng.normal(0, design.spread, (draws, seeds)) if design.spread else np.zeros((draws, seeds))
    return Draws(design, base, ability, luck, shift, uniform(rng, design, shape))


def uniform(rng: np.random.Generator, design: Design, shape: tuple[int, ...]) -> Floats:
    """Return uniform variables; the last axis has the cases, which are correlated within a group."""
    if not design.sizes:
        return rng.random(shape)
    member = design.member
    common = rng.standard_normal((*shape[:-1], member.max() + 1))[..., member]
    own = rng.standard_normal(shape)
    return np.asarray(ndtr(np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * own))


@cache
def probabilities(beta: tuple[float, float]) -> Floats:
    return np.asarray(betaincinv(*beta, (np.arange(LEVELS) + 0.5) / LEVELS))


@cache
def odds_of(beta: tuple[float, float], loss: float, spread: float) -> Floats:
    """Return the log-odds of each probability for a variant, whose mean probability is that of the base less `loss`."""
    odds = logit(probabilities(beta))
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    weights = weights / weights.sum()
    wanted = (1 - loss) * probabilities(beta).mean()

    def missing(move: float) -> float:
        each = [weight * expit(odds + move + spread * node).mean() for node, weight in zip(nodes, weights, strict=True)]
        return float(sum(each) - wanted)

    return np.asarray(odds + (brentq(missing, -20, 20, xtol=1e-12) if loss or spread else 0.0))


# --- bounds of many runs at once ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """The figures of many runs from which the bounds follow; each has the shape (draws,)."""

    base: Floats
    variant: Floats
    base_variance: Floats
    covariance: Floats
    variant_variance: Floats
    seeds: Floats
    """Variance of the mean from the choice of seeds; can be negative."""
    freedom: int | Floats
    cases: int
    clusters: int
    effect: Floats
    """Design effect of the floor."""


def moments(base: NDArray[np.bool_], variant: NDArray[np.bool_], groups: Sequence[str] | None) -> Moments:
    """Return the moments of runs: `base` is (draws, cases), `variant` is (draws, seeds, cases)."""
    cases, seeds = variant.shape[2], variant.shape[1]
    x, y = base.astype(float), variant.mean(axis=1)
    before, after = x.mean(axis=1), y.mean(axis=1)
    effect = floor_effect(base, groups)
    x, y = x - before[:, None], y - after[:, None]
    clusters = cases
    if groups:
        of = statistics.cluster_matrix(cases, groups)
        x, y, clusters = x @ of.T, y @ of.T, len(of)
    scale = clusters / (clusters - 1) / cases**2
    clusters = int(cases / mean_group(groups, cases))
    products = [scale * np.einsum("dg,dg->d", one, other) for one, other in ((x, x), (x, y), (y, y))]
    spread = seed_variance(variant) if seeds > 1 else np.zeros(len(x))
    return Moments(before, after, *products, spread, seeds - 1, cases, clusters, effect)


def floor_effect(base: NDArray[np.bool_], groups: Sequence[str] | None) -> Floats:
    """Return the mean number of base passes in the group of a passed case, (draws,)."""
    if not groups:
        return np.full(len(base), LEAST_DESIGN_EFFECT)
    passes = base @ statistics.cluster_matrix(base.shape[1], groups).T
    return np.fmax(LEAST_DESIGN_EFFECT, (passes**2).sum(axis=1) / np.maximum(1, passes.sum(axis=1)))


def seed_variance(variant: NDArray[np.bool_]) -> Floats:
    """Return the variance of the mean over seeds beyond the noise of single answers, (draws,)."""
    between, answers = seed_parts(variant)
    return between - answers


def seed_parts(variant: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the variance of the mean over seeds, and how much of it the noise of single answers explains."""
    _, seeds, cases = variant.shape
    by_seed, by_case = variant.mean(axis=2), variant.mean(axis=1)
    overall = by_seed.mean(axis=1)
    # The sum of squares of what is left without the means of seeds and cases; a square of 0 or 1 is itself.
    rest = variant.sum(axis=(1, 2)) - cases * (by_seed**2).sum(axis=1) - seeds * (by_case**2).sum(axis=1)
    rest = rest + seeds * cases * overall**2
    return by_seed.var(axis=1, ddof=1) / seeds, rest / ((seeds - 1) * (cases - 1)) / (seeds * cases)


def bounds(of: Moments, level: float) -> tuple[Floats, Floats]:
    """Return the lower and the upper one-sided bound of the net loss at this level; without base passes, no bounds."""
    t2 = stdtrit(of.clusters - 1, level) ** 2
    s2 = (stdtrit(of.freedom, level) ** 2 if np.any(of.freedom) else 0.0) * np.maximum(0, of.seeds)
    with np.errstate(divide="ignore", invalid="ignore"):
        square = of.base**2 - t2 * of.base_variance
        cross = of.base * of.variant - t2 * of.covariance
        root = np.sqrt(np.maximum(0, cross**2 - square * (of.variant**2 - t2 * of.variant_variance - s2)))
        low = np.where(square > 0, np.maximum(0, (cross - root) / square), 0.0)
        high = np.where(square > 0, (cross + root) / square, np.inf)
        ratio, width, more = of.variant / of.base, t2 * of.effect / (of.cases * of.base), s2 / of.base**2
        middle = 2 * ratio + width
        inner = middle**2 - 4 * (1 + width) * (ratio**2 - more)
        for sign in (-1, 1):
            end = (middle + sign * np.sqrt(inner)) / (2 * (1 + width))
            low, high = (
                np.where(end <= 1, np.fmin(low, np.maximum(0, end)), low),
                np.where(end <= 1, np.fmax(high, end), high),
            )
        high = np.fmax(high, (middle + np.sqrt(middle**2 - 4 * (ratio**2 + width - more))) / 2)
        impossible = 1 - high < np.minimum(-1, 1 - 1 / of.base)
    none = of.base <= 0
    return np.where(none | impossible, -np.inf, 1 - high), np.where(none, np.inf, 1 - low)


# --- counting ----------------------------------------------------------------------------------------------------


def chunks(rng: np.random.Generator, design: Design, draws: int) -> Iterator[Draws]:
    for start in range(0, draws, CHUNK):
        yield draw(rng, design, min(CHUNK, draws - start))


def counted(
    rng: np.random.Generator, design: Design, draws: int, losses: Iterable[tuple[float, str]]
) -> list[dict[str, Any]]:
    """Return one row for each loss and kind: how often what was said of a variant with this net loss."""
    wanted = list(losses)
    found: list[list[dict[str, Floats]]] = [[] for _ in wanted]
    for drawn in chunks(rng, design, draws):
        for (loss, kind), parts in zip(wanted, found, strict=True):
            parts.append(_said(drawn, loss, kind))
    return [
        {**design.described(), "loss": loss, "kind": kind if loss else "placebo", **_summary(parts, design)}
        for (loss, kind), parts in zip(wanted, found, strict=True)
    ]


def _said(drawn: Draws, loss: float, kind: str) -> dict[str, Floats]:
    variant = drawn.variant(loss, kind)
    of = moments(drawn.base, variant, drawn.design.groups)
    passed = drawn.base.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        old = ((1 - variant.mean(axis=1)) * drawn.base).sum(axis=1) / passed
        ratio = 1 - of.variant / of.base
    return {
        "points": of.base - of.variant, "ratio": np.where(passed > 0, ratio, np.nan),
        "old": np.where(passed > 0, old, np.nan), **_verdicts(of, drawn.base, loss),
    }  # fmt: skip


def _verdicts(of: Moments, base: NDArray[np.bool_], loss: float) -> dict[str, Floats]:
    """Return whether the interval contains the loss, and whether the variant is said to keep or to lose, (draws,) each.

    `loses_enough` is `loses` without the runs whose base model passes fewer cases than `least_passes`.
    """
    (_, high), (wide_low, wide_high) = bounds(of, 0.95), bounds(of, TWO_SIDED)
    said = {"covered": (wide_low <= loss + 1e-12) & (loss <= wide_high + 1e-12)}
    for margin in MARGINS:
        enough = base.sum(axis=1) >= [least_passes(margin, effect) for effect in of.effect]
        name = f"{100 * margin:.0f}"
        said |= {f"keeps_{name}": high < margin, f"loses_{name}": wide_low > margin}
        said[f"loses_enough_{name}"] = (wide_low > margin) & enough
    return said


def _summary(parts: Sequence[dict[str, Floats]], design: Design) -> dict[str, Any]:
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    said = {name: round(float(joined[name].mean()), 4) for name in joined if name not in ("points", "ratio", "old")}
    return {
        "mean_points_of_all_cases": round(100 * float(joined["points"].mean()), 2),
        "mean_ratio": round(100 * float(np.nanmean(joined["ratio"])), 2),
        "median_ratio": round(100 * float(np.nanmedian(joined["ratio"])), 2),
        "mean_by_old_rule": round(100 * float(np.nanmean(joined["old"])), 2),
        **said,
    }


def alternatives(rng: np.random.Generator, design: Design, draws: int, loss: float, kind: str) -> dict[str, Any]:
    """Judge the same runs by the rule, by the old rule, and by Newcombe's interval divided by the base's pass rate.

    The product's own functions judge, and their bounds are compared with those of this study.
    """
    drawn = draw(rng, design, draws)
    variant, groups = drawn.variant(loss, kind), design.groups
    of = moments(drawn.base, variant, groups)
    low, high = bounds(of, 0.95)
    counts: dict[str, list[bool]] = {}
    apart = 0.0
    for n in range(draws):
        x, y = drawn.base[n : n + 1].astype(float), variant[n].astype(float)
        if not x.any():
            continue
        own = net_loss(x, y, groups)
        assert own is not None
        apart = max(apart, *(abs(a - b) for a, b in ((own.low, low[n]), (own.high, high[n])) if np.isfinite(a)))
        wide = net_loss(x, y, groups, level=TWO_SIDED)
        assert wide is not None
        said = {"rule": (wide.low, own.high), "old": _old(x, y, groups), "newcombe": _newcombe(x, y, groups, 0.9)}
        ends = {"rule": (wide.low, wide.high), "newcombe": _newcombe(x, y, groups, 0.95)}
        for name, (least, most) in said.items():
            for margin in MARGINS:
                counts.setdefault(f"{name}_keeps_{100 * margin:.0f}", []).append(most < margin)
                counts.setdefault(f"{name}_loses_{100 * margin:.0f}", []).append(least > margin)
        for name, (least, most) in ends.items():
            counts.setdefault(f"{name}_covered", []).append(least - 1e-12 <= loss <= most + 1e-12)
    shares = {name: round(float(np.mean(hits)), 4) for name, hits in counts.items()}
    return {**design.described(), "loss": loss, "kind": kind if loss else "placebo", **shares, "apart": apart}


def _old(x: statistics.Scores, y: statistics.Scores, groups: Sequence[str] | None) -> tuple[float, float]:
    """Return what the old rule compared with the margin: the loss itself if it is too large, and its upper bound."""
    passed = x[0] > 0
    own = [group for group, counts in zip(groups, passed, strict=True) if counts] if groups else None
    found = statistics.difference(x[:, passed], y[:, passed], own, level=0.9)
    return -found.value + 1e-12, -found.low


def _newcombe(
    x: statistics.Scores, y: statistics.Scores, groups: Sequence[str] | None, level: float
) -> tuple[float, float]:
    found = statistics.difference(x, y, groups, level=level)
    return -found.high / x.mean(), -found.low / x.mean()


# --- groups that break as a whole --------------------------------------------------------------------------------

WEAK_CORRELATION = 0.25
"""The correlation of broken cases within a group that an earlier rule assumed."""


def whole_groups(rng: np.random.Generator, design: Design, draws: int) -> list[dict[str, Any]]:
    """Judge variants that break whole groups, by the rule and by a floor with a weaker correlation within groups."""
    wanted = [(0.0, "weaker"), (0.15, "whole"), (0.20, "whole")]
    found: list[dict[str, list[Floats]]] = [{} for _ in wanted]
    groups = design.groups
    weak = max(LEAST_DESIGN_EFFECT, 1 + WEAK_CORRELATION * (mean_group(groups, design.cases) - 1))
    for drawn in chunks(rng, design, draws):
        for (loss, kind), shares in zip(wanted, found, strict=True):
            of = moments(drawn.base, drawn.variant(loss, kind), groups)
            before = _verdicts(replace(of, effect=np.full(len(drawn.base), weak)), drawn.base, loss)
            said = _verdicts(of, drawn.base, loss) | {f"weak_{name}": hits for name, hits in before.items()}
            for name, hits in said.items():
                shares.setdefault(name, []).append(hits)
    return [{**design.described(), "loss": loss, "kind": kind if loss else "placebo", **_shares(shares)}
            for (loss, kind), shares in zip(wanted, found, strict=True)]  # fmt: skip


def _shares(hits: dict[str, list[Floats]]) -> dict[str, float]:
    return {name: round(float(np.concatenate(own).mean()), 4) for name, own in hits.items()}


# --- unlike variants ---------------------------------------------------------------------------------------------

Pool = Callable[[Floats, Floats, int], tuple[Floats, Floats]]
"""Return the variance between seeds of the first variant, and its degrees of freedom, (draws,) each.

The arguments are the two parts of `seed_parts` for all variants, (draws, variants), and one variant's degrees of
freedom.
"""


def _own(between: Floats, answers: Floats, freedom: int) -> tuple[Floats, Floats]:
    return between[:, 0] - answers[:, 0], np.full(len(between), float(freedom))


def _mean(between: Floats, answers: Floats, freedom: int) -> tuple[Floats, Floats]:
    return (between - answers).mean(axis=1), np.full(len(between), float(freedom * between.shape[1]))


def _median(between: Floats, answers: Floats, freedom: int) -> tuple[Floats, Floats]:
    """A median has about half the information of a mean, so it has half the degrees of freedom."""
    return _typical(between, freedom) - answers.mean(axis=1), _mean(between, answers, freedom)[1] / 2


def _typical(between: Floats, freedom: int) -> Floats:
    return np.asarray(np.median(between, axis=1) / (gammaincinv(freedom / 2, 0.5) * 2 / freedom))


def _larger(between: Floats, answers: Floats, freedom: int) -> tuple[Floats, Floats]:
    value, many = _median(between, answers, freedom)
    return np.maximum(value, _own(between, answers, freedom)[0]), many


def _own_if_unlike(between: Floats, answers: Floats, freedom: int) -> tuple[Floats, Floats]:
    """Return the larger of both, but with the variant's own freedom if an F test (10%) tells it from the median."""
    value, many = _larger(between, answers, freedom)
    unlike = between[:, 0] > fdtri(freedom, many, 0.9) * _typical(between, freedom)
    return value, np.where(unlike, freedom, many)


POOLS: dict[str, Pool] = {
    "own": _own, "mean": _mean, "median": _median, "larger": _larger, "own_if_unlike": _own_if_unlike,
}  # fmt: skip
"""The rule, `own`, and alternatives that use the other variants of a run."""
OTHERS = ("alike", "stable", "one noisy", "one diverged", "two diverged")
"""The other variants: placebos whose seeds differ as the first one's, or not at all; or some of them are bad."""


def unlike(rng: np.random.Generator, design: Design, draws: int, loss: float, others: str) -> dict[str, Any]:
    """Judge one variant of `VARIANTS` by each way to estimate the variance between its seeds."""
    shares: dict[str, list[Floats]] = {}
    for drawn in chunks(rng, design, draws):
        first = drawn.variant(loss, "weaker")
        parts = [seed_parts(first), *(seed_parts(other) for other in _others(rng, drawn, others))]
        between, answers = (np.stack(part, axis=1) for part in zip(*parts, strict=True))
        of = moments(drawn.base, first, design.groups)
        for name, pool in POOLS.items():
            value, freedom = pool(between, answers, design.seeds - 1)
            said = _verdicts(replace(of, seeds=value, freedom=freedom), drawn.base, loss)
            for figure in ("covered", "keeps_15", "loses_enough_15"):
                shares.setdefault(f"{name}_{figure}", []).append(said[figure])
    return {**design.described(), "loss": loss, "kind": others, **_shares(shares)}


def _others(rng: np.random.Generator, drawn: Draws, others: str) -> Iterator[NDArray[np.bool_]]:
    design, bad = drawn.design, {"one noisy": 1, "one diverged": 1, "two diverged": 2}.get(others, 0)
    for number in range(VARIANTS - 1):
        if number >= bad:
            own = replace(design, spread=0.0) if others == "stable" else design
            yield _again(rng, drawn, own).variant(0.0, "weaker")
        elif others == "one noisy":
            yield _again(rng, drawn, replace(design, spread=1.5)).variant(0.20, "weaker")
        else:  # each seed keeps another share of the passes
            kept = rng.choice([0.8, 0.5, 0.0], (len(drawn.base), design.seeds, 1))
            stable = _again(rng, drawn, replace(design, spread=0.0)).variant(0.0, "weaker")
            yield stable & (rng.random(stable.shape) < kept)


def _again(rng: np.random.Generator, drawn: Draws, design: Design) -> Draws:
    """Return draws of another variant on the same cases."""
    return replace(draw(rng, design, len(drawn.base)), ability=drawn.ability)


# --- sample sizes ------------------------------------------------------------------------------------------------


BASES = ((2.0, 2.0), (2.8, 1.2), (3.6, 0.4))


def predicted(rng: np.random.Generator, design: Design, draws: int) -> list[dict[str, Any]]:
    """Compare `chance_shown` with the simulated share of placebos, and of losses of 5 points, that are shown."""
    rows = []
    for row in counted(rng, design, draws, [(0.0, "weaker"), (0.05, "weaker")]):
        for margin in MARGINS:
            told = predicted_chance(design, margin, row["loss"])
            seen = row[f"keeps_{100 * margin:.0f}"]
            told_of = {**design.described(), "base": design.base, "margin": margin, "loss": row["loss"]}
            rows.append({**told_of, "predicted": round(told, 3), "simulated": seen, "error": round(told - seen, 3)})
    return rows


def predicted_chance(design: Design, margin: float, loss: float) -> float:
    """Return what the product predicts."""
    group = mean_group(design.groups, design.cases)
    return chance_shown(design.cases, design.base, margin, seeds=design.seeds, loss=loss, group=group)


def enough(rng: np.random.Generator, design: Design, draws: int, margin: float) -> list[dict[str, Any]]:
    """Simulate the power with the number of cases that `cases_to_show` suggests for 80%."""
    group = mean_group(_group_names(1_400, design.sizes), 1_400) if design.sizes else 1.0
    cases = cases_to_show(design.base, margin, seeds=design.seeds, group=group)
    if cases is None:
        return []
    design = replace(design, cases=cases)
    (row,) = counted(rng, design, draws, [(0.0, "weaker")])
    return [{**design.described(), "base": design.base, "margin": margin,
             "simulated": row[f"keeps_{100 * margin:.0f}"]}]  # fmt: skip


# --- claims ------------------------------------------------------------------------------------------------------


def claims(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Check what the rule claims, at its worst design. One seed with a seed effect is apart: no rule can see it."""
    fair = [row for row in rows if not (row["seeds"] == 1 and row["spread"])]
    return [*_claims_of_intervals(fair), *_claims_of_margins(fair)]


def _claims_of_intervals(fair: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    nothing = [row for row in fair if row["kind"] == "placebo"]
    return [
        _claim("placebo: mean net loss, in points of all cases", nothing, "mean_points_of_all_cases", within=0.5),
        _claim("any loss: coverage of the two-sided 95% interval", fair, "covered", least=0.93),
        _claim("placebo: coverage of the two-sided 95% interval", nothing, "covered", least=0.93),
    ]


def _claims_of_margins(fair: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    nothing = [row for row in fair if row["kind"] == "placebo"]
    found = []
    for margin in MARGINS:
        name = f"{100 * margin:.0f}"
        what = f"placebo: said to lose more than {name} points"
        found.append(_claim(what, nothing, f"loses_enough_{name}", most=0.01))
        found.append(_claim(f"{what}, however few cases the base passes", nothing, f"loses_{name}", most=0.01))
        for beyond, most in ((0.05, 0.05), (0.0, 0.065)):
            at = [row for row in fair if abs(row["loss"] - margin - beyond) < 1e-9]
            if not at:
                continue
            where = f"{100 * beyond:.0f} points beyond" if beyond else "exactly at"
            found.append(_claim(f"{where} a margin of {name}: shown to be below it", at, f"keeps_{name}", most=most))
    return found


def by_cases(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return, for placebos without a seed effect, the bias of the ratio and the old rule, and the power."""
    found: dict[str, Any] = {}
    for cases in CASES:
        own = [row for row in rows if row["cases"] == cases and row["kind"] == "placebo" and not row["spread"]]
        found[f"{cases} cases"] = {
            **{name: [min(each), max(each)] for name in ("mean_ratio", "median_ratio", "mean_by_old_rule")
               if (each := [row[name] for row in own])},
            "power": [
                {**{key: row[key] for key in ("beta", "seeds", "groups")},
                 **{f"margin {100 * margin:.0f}": row[f"keeps_{100 * margin:.0f}"] for margin in MARGINS}}
                for row in own
            ],
        }  # fmt: skip
    return found


def _claim(
    claim: str, rows: Sequence[dict[str, Any]], figure: str, *,
    least: float | None = None, most: float | None = None, within: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    def bad(row: dict[str, Any]) -> float:
        value = float(row[figure])
        return -value if least is not None else abs(value) if within is not None else value

    worst = max(rows, key=bad)
    limit = -least if least is not None else within if within is not None else most
    assert limit is not None
    limits = {"at_least": least, "at_most": most, "within": within}
    where = {key: worst[key] for key in ("beta", "cases", "seeds", "spread", "groups", "loss", "kind")}
    failing = [
        {key: row[key] for key in where} | {"found": row[figure]} for row in rows if bad(row) > limit
    ]  # fmt: skip
    mean = round(float(np.mean([row[figure] for row in rows])), 4)
    return {
        "claim": claim, **{key: value for key, value in limits.items() if value is not None},
        "worst": worst[figure], "mean": mean, "designs": len(rows), "holds": not failing, "where": where,
        "fails_in": failing,
    }  # fmt: skip


def claims_of_whole_groups(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    whole = _claim("whole groups: coverage of the two-sided 95% interval", rows, "covered", least=0.93)
    return [whole, *_claims_of_margins(rows)]


def claims_of_unlike(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Check the rule, `own`, and show beside it what each way to pool says at its worst design."""
    at, beyond, nothing = ([row for row in rows if row["loss"] == loss] for loss in (0.15, 0.20, 0.0))
    alike = [row for row in nothing if row["kind"] == "alike"]
    bad = [row for row in nothing if row["kind"] in OTHERS[2:]]
    found = []
    for name in POOLS:
        found += [
            _claim(f"{name}: coverage", rows, f"{name}_covered", least=0.93),
            _claim(f"{name}: exactly at the margin, shown to be below it", at, f"{name}_keeps_15", most=0.065),
            _claim(f"{name}: 5 points beyond the margin", beyond, f"{name}_keeps_15", most=0.05),
            _claim(f"{name}: placebo said to lose", nothing, f"{name}_loses_enough_15", most=0.01),
            _claim(f"{name}: placebo shown to keep, others alike", alike, f"{name}_keeps_15", least=0.0),
            _claim(f"{name}: placebo shown to keep, bad others", bad, f"{name}_keeps_15", least=0.0),
        ]
    return found


def designs() -> Iterator[Design]:
    for beta, cases, (seeds, spread), sizes in product(BETAS, CASES, SEEDS, ((), SIZES)):
        yield Design(beta, cases, seeds, spread, sizes)


def losses(design: Design) -> list[tuple[float, str]]:
    """Return the losses and kinds to simulate. Single cases that break are whole groups of one case."""
    kinds = (*KINDS, "whole") if design.sizes else KINDS
    return [(0.0, "weaker"), *((loss, kind) for loss in LOSSES[1:] for kind in kinds)]


Job = tuple[Callable[..., Any], tuple[int, ...], tuple[Any, ...]]
"""A part of the study: a function, the seed of its generator, and its other arguments."""


def parts(draws: int, few: int) -> dict[str, list[Job]]:
    """Return the jobs of all parts. Each has a generator of its own, so that none changes the figures of another."""

    def jobs(part: int, function: Callable[..., Any], given: Iterable[tuple[Any, ...]]) -> list[Job]:
        return [(function, (part, n), arguments) for n, arguments in enumerate(given)]

    plain = [Design(beta, cases, seeds, sizes=sizes)
             for beta, cases, seeds, sizes in product(BETAS, CASES, (1, 3), ((), SIZES))]  # fmt: skip
    told = [(0.0, "weaker"), (0.15, "broken"), (0.20, "broken")]
    strong = [Design(beta, 130, seeds, sizes=sizes) for beta, seeds, sizes in
              product(((2.0, 2.0), (8.0, 2.0), (19.0, 1.0)), (1, 3), ((2,), SIZES, (5,), (1, 1, 1, 10)))]  # fmt: skip
    runs = [Design(beta, cases, seeds, spread) for beta, cases, seeds, spread in
            product(((2.0, 2.0), (8.0, 2.0), (19.0, 1.0)), (52, 130), (2, 3, 5), (0.0, 0.25, 0.5, 1.0))]  # fmt: skip
    sized = [Design(beta, cases, seeds, sizes=sizes)
             for beta, cases, seeds, sizes in product(BASES, (20, 52, 130, 200, 400), (1, 3), ((), SIZES))]  # fmt: skip
    margins = [(Design(beta, 0, seeds, sizes=sizes), draws // 4, margin)
               for beta, margin, seeds, sizes in product(BASES, MARGINS, (1, 3), ((), SIZES))]  # fmt: skip
    return {
        "rows": jobs(1, counted, ((design, draws, losses(design)) for design in designs())),
        "alternatives": jobs(2, alternatives, ((design, few, *loss) for design in plain for loss in told)),
        "whole groups": jobs(3, whole_groups, ((design, draws) for design in strong)),
        "unlike": jobs(4, unlike, ((design, draws // 2, *own) for design in runs for own in _told(design))),
        "chance_shown": jobs(5, predicted, ((design, draws // 4) for design in sized)),
        "cases_to_show": jobs(6, enough, margins),
    }  # fmt: skip


def _told(design: Design) -> list[tuple[float, str]]:
    """Return the losses of the first variant, and the others: placebos where seeds differ as they do in real runs."""
    found = [(0.0, others) for others in OTHERS if design.spread <= 0.25]
    return [*found, *((loss, others) for loss in (0.15, 0.20) for others in OTHERS[:2] if design.spread)]


def done(job: Job) -> Any:
    function, seed, arguments = job
    return function(np.random.default_rng(seed), *arguments)


def study(draws: int, few: int, processes: int = 1) -> dict[str, Any]:
    """Run all parts on this number of processes."""
    wanted = parts(draws, few)
    with ProcessPoolExecutor(processes) as pool:
        running = {name: pool.map(done, jobs) for name, jobs in wanted.items()}
        found = {name: list(results) for name, results in running.items()}
    rows, whole, sizes, suggested = (
        [row for several in found[name] for row in several]
        for name in ("rows", "whole groups", "chance_shown", "cases_to_show")
    )
    beside, others = found["alternatives"], found["unlike"]
    seen = [row for row in others if row["seeds"] > 2 and row["spread"] <= 0.5]
    return {
        "draws": draws, "correlation": CORRELATION,
        "claims": claims(rows),
        "placebos_without_seed_effect": by_cases(rows),
        "largest_difference_from_the_product": max(row["apart"] for row in beside),
        "alternatives": {"draws": few, "summary": _beside(beside), "rows": columns(beside)},
        "whole_groups": {"draws": draws, "claims": claims_of_whole_groups(whole), "rows": columns(whole)},
        "unlike_variants": {
            "variants": VARIANTS, "draws": draws // 2,
            "claims_for_3_or_5_seeds_and_spreads_up_to_0.5": claims_of_unlike(seen), "rows": columns(others),
        },
        "chance_shown": {"draws": draws // 4, **_errors(sizes), "rows": columns(sizes)},
        "cases_to_show": {"draws": draws // 4, "power": 0.8, "rows": suggested},
        "rows": columns(rows),
    }  # fmt: skip


def columns(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a table as the names of its columns and one list for each row, which is shorter than one object."""
    return {"columns": list(rows[0]), "rows": [list(row.values()) for row in rows]}


def _beside(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean, the least and the greatest share over the designs, by rule and kind of variant."""
    found: dict[str, Any] = {}
    for loss in (0.0, 0.15, 0.20):
        own = [row for row in rows if row["loss"] == loss]
        figures = [key for key in own[0] if "keeps" in key or "loses" in key or "covered" in key]
        found[f"net loss {100 * loss:.0f}"] = {
            key: [round(float(f([row[key] for row in own])), 4) for f in (np.mean, np.min, np.max)] for key in figures
        }
    return found


def _errors(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for groups in ("none", "2 to 5"):
        off = [row["error"] for row in rows if row["groups"] == groups]
        found[f"groups {groups}"] = {"mean_error": round(float(np.mean(off)), 3), "least": min(off), "most": max(off)}
    return {"errors": found}


def lines(found: dict[str, Any]) -> str:
    """Return JSON with one line for each row of a table."""
    rows: dict[str, str] = {}

    def marked(value: Any) -> Any:
        if isinstance(value, list) and value and all(isinstance(row, dict | list) for row in value):
            marks = [f"@{len(rows) + n}@" for n in range(len(value))]
            rows.update(zip(marks, map(json.dumps, value), strict=True))
            return marks
        return {key: marked(own) for key, own in value.items()} if isinstance(value, dict) else value

    text = json.dumps(marked(found), indent=1)
    for mark, row in rows.items():
        text = text.replace(f'"{mark}"', row, 1)
    return text + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--few", type=int, default=400, help="Draws that the product's own functions judge.")
    parser.add_argument("--processes", type=int, default=1, help="Their number does not change the figures.")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    given = parser.parse_args()
    command = f"python -m tests.studies.placebos --draws {given.draws} --few {given.few} --output {given.output}"
    write_text(given.output, lines({"command": command, **study(given.draws, given.few, given.processes)}))


if __name__ == "__main__":
    main()
