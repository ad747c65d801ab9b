"""Simulates variants of known net loss, and counts what the bounds of `harness.analysis.net_loss` say of them.

    python -m tests.studies.placebos --draws 10000 --output reports/studies/placebos.json     (some minutes on one core)

The pass probabilities of the cases are drawn from a beta distribution, and base model and variant answer independently
of each other, given these probabilities. In groups of 2 to 5 cases, the probabilities and the results are correlated.
A variant of net loss 0 is a placebo. A loss is either `weaker` (all cases get harder by the same log-odds) or `broken`
(a share of the cases always fails, and cases of a group break together more often).

Beside the rule are the rule that counted only the cases that the base model passed, and an alternative: the interval of
the difference of the pass rates (Newcombe), divided by the base model's pass rate.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv, expit, logit, ndtr, stdtrit

from harness.analysis import statistics
from harness.analysis.losses import TWO_SIDED
from harness.analysis.net_loss import cases_to_show, chance_shown, design_effect, least_passes, net_loss
from harness.storage.files import write_text

Floats = NDArray[np.float64]
BETAS = ((0.5, 0.5), (2.0, 2.0), (5.0, 5.0))
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
POOLED = 8
"""Number of variants whose variance between seeds is pooled, in one part of the study."""
SIZES = (2, 3, 4, 5)


# --- simulated runs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """What is simulated: the cases' pass probabilities, their number, their groups, and the seeds of the variant."""

    beta: tuple[float, float]
    cases: int
    seeds: int = 3
    spread: float = 0.0
    grouped: bool = False

    @property
    def groups(self) -> list[str] | None:
        """The group of each case, or None without groups."""
        return _group_names(self.cases) if self.grouped else None

    @property
    def base(self) -> float:
        return self.beta[0] / sum(self.beta)

    @property
    def effect(self) -> float:
        """The design effect that the product assumes before a run."""
        return design_effect(self.groups, self.cases) if self.grouped else 1.0

    def described(self) -> dict[str, Any]:
        groups = "2 to 5" if self.grouped else "none"
        return {"beta": list(self.beta), "cases": self.cases, "seeds": self.seeds, "spread": self.spread,
                "groups": groups}  # fmt: skip


def _group_names(cases: int) -> list[str]:
    names: list[str] = []
    for number, size in enumerate(cycle(SIZES)):
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
        return passes & (self.breaking >= loss)[:, None] if kind == "broken" else passes


def draw(rng: np.random.Generator, design: Design, draws: int) -> Draws:
    shape, seeds = (draws, design.cases), design.seeds
    ability = (uniform(rng, design, shape) * LEVELS).astype(np.intp).clip(max=LEVELS - 1)
    base = uniform(rng, design, shape) < probabilities(design.beta)[ability]
    luck = uniform(rng, design, (draws, seeds, design.cases))
    shift = rng.normal(0, design.spread, (draws, seeds)) if design.spread else np.zeros((draws, seeds))
    return Draws(design, base, ability, luck, shift, uniform(rng, design, shape))


def uniform(rng: np.random.Generator, design: Design, shape: tuple[int, ...]) -> Floats:
    """Return uniform variables; the last axis has the cases, which are correlated within a group."""
    if not design.grouped:
        return rng.random(shape)
    member = np.unique(_group_names(design.cases), return_inverse=True)[1]
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
    freedom: int
    cases: int
    clusters: int
    effect: float


def moments(base: NDArray[np.bool_], variant: NDArray[np.bool_], groups: Sequence[str] | None) -> Moments:
    """Return the moments of runs: `base` is (draws, cases), `variant` is (draws, seeds, cases)."""
    cases, seeds = variant.shape[2], variant.shape[1]
    x, y = base.astype(float), variant.mean(axis=1)
    before, after = x.mean(axis=1), y.mean(axis=1)
    x, y = x - before[:, None], y - after[:, None]
    clusters = cases
    if groups:
        of = statistics.cluster_matrix(cases, groups)
        x, y, clusters = x @ of.T, y @ of.T, len(of)
    scale = clusters / (clusters - 1) / cases**2
    products = [scale * np.einsum("dg,dg->d", one, other) for one, other in ((x, x), (x, y), (y, y))]
    spread = seed_variance(variant) if seeds > 1 else np.zeros(len(x))
    return Moments(before, after, *products, spread, seeds - 1, cases, clusters, design_effect(groups, cases))


def seed_variance(variant: NDArray[np.bool_]) -> Floats:
    """Return the variance of the mean over seeds beyond the noise of single answers, (draws,)."""
    _, seeds, cases = variant.shape
    by_seed, by_case = variant.mean(axis=2), variant.mean(axis=1)
    overall = by_seed.mean(axis=1)
    # The sum of squares of what is left without the means of seeds and cases; a square of 0 or 1 is itself.
    rest = variant.sum(axis=(1, 2)) - cases * (by_seed**2).sum(axis=1) - seeds * (by_case**2).sum(axis=1)
    rest = rest + seeds * cases * overall**2
    return np.asarray(by_seed.var(axis=1, ddof=1) / seeds - rest / ((seeds - 1) * (cases - 1)) / (seeds * cases))


def bounds(of: Moments, level: float) -> tuple[Floats, Floats]:
    """Return the lower and the upper one-sided bound of the net loss at this level; without base passes, no bounds."""
    t2 = stdtrit(of.clusters - 1, level) ** 2
    s2 = (stdtrit(of.freedom, level) ** 2 if of.freedom else 0.0) * np.maximum(0, of.seeds)
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
    none = of.base <= 0
    return np.where(none, -np.inf, 1 - high), np.where(none, np.inf, 1 - low)


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
        "old": np.where(passed > 0, old, np.nan), **_verdicts(of, drawn.base, drawn.design, loss),
    }  # fmt: skip


def _verdicts(of: Moments, base: NDArray[np.bool_], design: Design, loss: float) -> dict[str, Floats]:
    """Return whether the interval contains the loss, and whether the variant is said to keep or to lose, (draws,) each.

    `loses_enough` is `loses` without the runs whose base model passes fewer cases than `least_passes`.
    """
    (_, high), (wide_low, wide_high) = bounds(of, 0.95), bounds(of, TWO_SIDED)
    said = {"covered": (wide_low <= loss + 1e-12) & (loss <= wide_high + 1e-12)}
    for margin in MARGINS:
        enough = base.sum(axis=1) >= least_passes(margin, design.groups, design.cases)
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


def pooled(
    rng: np.random.Generator, design: Design, draws: int, losses: Iterable[tuple[float, str]]
) -> list[dict[str, Any]]:
    """Judge with the variance between seeds pooled over `POOLED` variants, of which all others are placebos."""
    wanted = list(losses)
    found: list[dict[str, list[Floats]]] = [{} for _ in wanted]
    for drawn in chunks(rng, design, draws):
        others = np.zeros(len(drawn.base))
        for _ in range(POOLED - 1):
            fresh = draw(rng, design, len(drawn.base))
            others += seed_variance(replace(fresh, ability=drawn.ability).variant(0.0, "weaker"))
        for (loss, kind), shares in zip(wanted, found, strict=True):
            of = moments(drawn.base, drawn.variant(loss, kind), design.groups)
            of = replace(of, seeds=(of.seeds + others) / POOLED, freedom=POOLED * (design.seeds - 1))
            for name, hits in _verdicts(of, drawn.base, design, loss).items():
                shares.setdefault(name, []).append(hits)
    return [
        {**design.described(), "loss": loss, "kind": kind if loss else "placebo",
         **{name: round(float(np.concatenate(hits).mean()), 4) for name, hits in shares.items()},
         **{f"predicted_{100 * margin:.0f}": round(predicted_chance(design, margin, loss, POOLED), 3)
            for margin in MARGINS}}
        for (loss, kind), shares in zip(wanted, found, strict=True)
    ]  # fmt: skip


# --- sample sizes ------------------------------------------------------------------------------------------------


def predicted(rng: np.random.Generator, draws: int) -> list[dict[str, Any]]:
    """Compare `chance_shown` with the simulated share of placebos, and of losses of 5 points, that are shown."""
    rows = []
    beta = ((2.0, 2.0), (2.8, 1.2), (3.6, 0.4))
    for own, cases, seeds, grouped in product(beta, (20, 52, 130, 200, 400), (1, 3), (False, True)):
        design = Design(own, cases, seeds, grouped=grouped)
        for row in counted(rng, design, draws, [(0.0, "weaker"), (0.05, "weaker")]):
            for margin in MARGINS:
                told = predicted_chance(design, margin, row["loss"])
                seen = row[f"keeps_{100 * margin:.0f}"]
                told_of = {**design.described(), "base": design.base, "margin": margin, "loss": row["loss"]}
                rows.append({**told_of, "predicted": round(told, 3), "simulated": seen, "error": round(told - seen, 3)})
    return rows


def predicted_chance(design: Design, margin: float, loss: float, variants: int = 1) -> float:
    """Return what the product predicts if the variance between seeds is pooled over this number of variants."""
    return chance_shown(design.cases, design.base, margin, seeds=design.seeds, loss=loss, effect=design.effect,
                        freedom=variants * (design.seeds - 1))  # fmt: skip


def enough(rng: np.random.Generator, draws: int) -> list[dict[str, Any]]:
    """Simulate the power with the number of cases that `cases_to_show` suggests for 80%."""
    rows = []
    for beta, margin, seeds, grouped in product(((2.0, 2.0), (2.8, 1.2), (3.6, 0.4)), MARGINS, (1, 3), (False, True)):
        effect = design_effect(_group_names(1_400), 1_400) if grouped else 1.0
        cases = cases_to_show(beta[0] / sum(beta), margin, seeds=seeds, effect=effect)
        if cases is None:
            continue
        design = Design(beta, cases, seeds, grouped=grouped)
        (row,) = counted(rng, design, draws, [(0.0, "weaker")])
        rows.append({**design.described(), "base": design.base, "margin": margin,
                     "simulated": row[f"keeps_{100 * margin:.0f}"]})  # fmt: skip
    return rows


# --- claims ------------------------------------------------------------------------------------------------------


def claims(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Check what the rule claims, at its worst design. One seed with a seed effect is apart: no rule can see it."""
    fair = [row for row in rows if not (row["seeds"] == 1 and row["spread"])]
    nothing = [row for row in fair if row["kind"] == "placebo"]
    found = [
        _claim("placebo: mean net loss, in points of all cases", nothing, "mean_points_of_all_cases", within=0.5),
        _claim("any loss: coverage of the two-sided 95% interval", fair, "covered", least=0.93),
        _claim("placebo: coverage of the two-sided 95% interval", nothing, "covered", least=0.93),
    ]
    for margin in MARGINS:
        name = f"{100 * margin:.0f}"
        what = f"placebo: said to lose more than {name} points"
        found.append(_claim(what, nothing, f"loses_enough_{name}", most=0.01))
        found.append(_claim(f"{what}, however few cases the base passes", nothing, f"loses_{name}", most=0.01))
        for beyond, most in ((0.05, 0.05), (0.0, 0.065)):
            at = [row for row in fair if abs(row["loss"] - margin - beyond) < 1e-9]
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


def designs() -> Iterator[Design]:
    for beta, cases, (seeds, spread), grouped in product(BETAS, CASES, SEEDS, (False, True)):
        yield Design(beta, cases, seeds, spread, grouped)


def losses() -> list[tuple[float, str]]:
    return [(0.0, "weaker"), *((loss, kind) for loss in LOSSES[1:] for kind in KINDS)]


def study(draws: int, few: int) -> dict[str, Any]:
    """Run all parts. Each part has a generator of its own, so that another number of `draws` changes no other part."""
    rows = [row for n, design in enumerate(designs())
            for row in counted(np.random.default_rng([1, n]), design, draws, losses())]  # fmt: skip
    plain = [Design(beta, cases, seeds, grouped=grouped)
             for beta, cases, seeds, grouped in product(BETAS, CASES, (1, 3), (False, True))]  # fmt: skip
    told = [(0.0, "weaker"), (0.15, "broken"), (0.20, "broken")]
    beside = [alternatives(np.random.default_rng([2, n, m]), design, few, loss, kind)
              for n, design in enumerate(plain) for m, (loss, kind) in enumerate(told)]  # fmt: skip
    some = [Design((2.0, 2.0), cases, 3, spread, grouped)
            for cases, spread, grouped in product((52, 200), (0.0, 0.25), (False, True))]  # fmt: skip
    weaker = [(loss, "weaker") for loss in (0.0, 0.15, 0.20)]
    together = [row for n, design in enumerate(some)
                for row in pooled(np.random.default_rng([3, n]), design, draws // 2, weaker)]  # fmt: skip
    sizes = predicted(np.random.default_rng(4), draws // 4)
    suggested = enough(np.random.default_rng(5), draws // 4)
    return {
        "draws": draws, "correlation": CORRELATION,
        "claims": claims(rows),
        "placebos_without_seed_effect": by_cases(rows),
        "largest_difference_from_the_product": max(row["apart"] for row in beside),
        "alternatives": {"draws": few, "summary": _beside(beside), "rows": columns(beside)},
        "pooled": {"variants": POOLED, "draws": draws // 2, "rows": together},
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
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    given = parser.parse_args()
    command = f"python -m tests.studies.placebos --draws {given.draws} --few {given.few} --output {given.output}"
    write_text(given.output, lines({"command": command, **study(given.draws, given.few)}))


if __name__ == "__main__":
    main()
