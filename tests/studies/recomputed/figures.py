"""Compute the figures of a run again, from results.json and samples.jsonl, without the package `harness`.

`tests.studies.recompute` compares them with the figures on the run's page. Pass rates, counts and intervals come from
the answers in samples.jsonl. The suite's cases, the trainings and their costs come from results.json.
"""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

BASE = "base"
ROLES = ("learn", "generalise", "retain", "avoid")
GUARDED = ("retain", "avoid")
Array = NDArray[np.float64]
Data = dict[str, Any]


def read(folder: Path, name: str) -> str:
    """Read a file of a run, which may be compressed: `results.json`, or `results.json.xz`."""
    packed = folder / f"{name}.xz"
    if packed.exists():
        return lzma.decompress(packed.read_bytes()).decode("utf-8")
    return (folder / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Cell:
    """One case under one seed: how many of its scored repeats passed, of how many."""

    passed: int
    asked: int

    @property
    def share(self) -> float:
        return self.passed / self.asked


Table = dict[str, dict[int, Cell]]
"""The cells of one variant, by case and seed. A case without a score has no cell."""


@dataclass(frozen=True)
class Rate:
    passed: int
    total: int

    @property
    def percent(self) -> str:
        return f"{100 * self.passed / self.total:.0f}%" if self.total else "–"

    @property
    def counts(self) -> str:
        return f"{self.passed} of {self.total}"


@dataclass(frozen=True)
class Run:
    """The files of a run."""

    results: Data
    samples: list[Data]

    @classmethod
    def load(cls, folder: Path) -> Run:
        lines = read(folder, "samples.jsonl").splitlines()
        return cls(json.loads(read(folder, "results.json")), [json.loads(line) for line in lines if line])

    @property
    def suite(self) -> Data:
        found: Data = self.results["run"]["suite"]
        return found

    @property
    def objective(self) -> str:
        found: str = self.results["choice"]["objective"]
        return found

    @property
    def chosen(self) -> str | None:
        found: str | None = self.results["choice"]["variant"]
        return found

    @property
    def variants(self) -> list[Data]:
        found: list[Data] = self.results["variants"]
        return found

    @property
    def bases(self) -> list[Data]:
        """Return the base model in each quantisation, the first of the plan first."""
        return [self.results["base"], *self.results["bases"].values()]

    def base_of(self, variant: str | None) -> str:
        """Return the name of the base model that a variant is compared with: the one in its quantisation."""
        own = next((v for v in self.variants if v["name"] == variant), None)
        quantization = own["settings"]["quantization"] if own and own["settings"] else ""
        name: str = self.results["bases"].get(quantization, self.results["base"])["name"]
        return name

    @cached_property
    def cases(self) -> dict[str, Data]:
        return {case["id"]: case for case in self.suite["cases"]}

    def cases_of(self, split: str, roles: Iterable[str] = ROLES) -> list[str]:
        wanted = set(roles)
        return [id for id, case in self.cases.items() if case["split"] == split and case["role"] in wanted]

    def groups(self, cases: Iterable[str]) -> list[str]:
        return [self.cases[id]["group"] or f"\0{id}" for id in cases]

    # --- answers ---------------------------------------------------------------------------------------------------

    @cached_property
    def by_answer(self) -> dict[tuple[str, str], dict[str, dict[int, list[Data]]]]:
        """Return the answers by (variant, split), then case, then seed; the repeats of each in their order."""
        found: dict[tuple[str, str], dict[str, dict[int, list[Data]]]] = {}
        for sample in sorted(self.samples, key=lambda sample: sample["repeat"]):
            own = found.setdefault((sample["variant"], sample["split"]), {}).setdefault(sample["case"], {})
            own.setdefault(sample["seed"], []).append(sample)
        return found

    def answers(self, variant: str, split: str = "main") -> dict[str, dict[int, list[Data]]]:
        return self.by_answer.get((variant, split), {})

    def seeds(self, variant: str, split: str = "main") -> list[int]:
        return list(dict.fromkeys(seed for own in self.answers(variant, split).values() for seed in own))

    def verdict(self, repeats: Sequence[Data]) -> bool | None:
        """Return whether the repeats of a case pass together; None if they have no score."""
        scored = [one for one in repeats if one["score"] is not None]
        reducer = self.suite["reducer"]
        if not scored or (reducer != "mean" and len(scored) < len(repeats)):
            return None
        marks = [one["passed"] for one in scored]
        return fmean(marks) >= 0.5 if reducer == "mean" else all(marks) if reducer == "all" else any(marks)

    @cached_property
    def _tables(self) -> dict[tuple[str, str], Table]:
        return {key: self._table(own) for key, own in self.by_answer.items()}

    def table(self, variant: str, split: str = "main") -> Table:
        return self._tables.get((variant, split), {})

    def _table(self, answers: dict[str, dict[int, list[Data]]]) -> Table:
        """Return the cells of a variant: with the reducer `mean` each scored repeat counts, else the joint verdict."""
        found: Table = {}
        for case, by_seed in answers.items():
            for seed, repeats in by_seed.items():
                if (whole := self.verdict(repeats)) is None:
                    continue
                marks = [one["passed"] for one in repeats if one["score"] is not None]
                mean = self.suite["reducer"] == "mean"
                found.setdefault(case, {})[seed] = Cell(sum(marks), len(marks)) if mean else Cell(int(whole), 1)
        return found

    def rate(self, variant: str, roles: Iterable[str], split: str = "main", label: str = "") -> Rate:
        table = self.table(variant, split)
        cases = [case for case in self.cases_of(split, roles) if not label or self.leak(case) == label]
        cells = [cell for case in cases for cell in table.get(case, {}).values()]
        return Rate(sum(cell.passed for cell in cells), sum(cell.asked for cell in cells))

    def leak(self, case: str) -> str:
        found: str = self.results["leaks"][case]["label"]
        return found

    def cut(self, variant: str, roles: Iterable[str], split: str = "main") -> Rate:
        """Return how many answers were cut at the limit of new tokens."""
        wanted = set(self.cases_of(split, roles))
        own = [s for s in self.samples if (s["variant"], s["split"]) == (variant, split) and s["case"] in wanted]
        return Rate(sum(sample["truncated"] for sample in own), len(own))

    def scores(self, variant: str, roles: Iterable[str], split: str = "main") -> tuple[list[str], Array]:
        """Return the cases with a cell under every seed, and their scores `(seeds, cases)`."""
        table, seeds = self.table(variant, split), self.seeds(variant, split)
        cases = [case for case in self.cases_of(split, roles) if seeds and set(seeds) <= set(table.get(case, {}))]
        shares = [[table[case][seed].share for case in cases] for seed in seeds]
        return cases, np.array(shares, dtype=float).reshape(len(seeds), len(cases))

    def flips(self, variant: str) -> tuple[int, int]:
        """Return how many cases the base fails and the variant passes, and the reverse, summed over seeds."""
        base, own = self.table(self.base_of(variant)), self.table(variant)
        fixed = broken = 0
        for case in own.keys() & base.keys():
            marks = [cell.share >= 0.5 for cell in base[case].values()]
            was = sum(marks) > len(marks) / 2
            for cell in own[case].values():
                now = cell.share >= 0.5
                fixed += now and not was
                broken += was and not now
        return fixed, broken

    def reference_loss(self, variant: str) -> float | None:
        """Return the mean loss on the references of the objective's cases, in nats per token."""
        cases = set(self.cases_of("main", (self.objective,)))
        found = [
            own for sample in self.results["samples"]
            if sample["variant"] == variant and sample["case"] in cases and (own := sample["answer"]["reference"])
            and own["tokens"] and np.isfinite(own["total"])
        ]  # fmt: skip
        return -sum(own["total"] for own in found) / sum(own["tokens"] for own in found) if found else None

    def outcome(self, variant: str) -> Data:
        return next(own for own in (*self.bases, *self.variants) if own["name"] == variant)


# --- statistics ------------------------------------------------------------------------------------------------------


def sums_by_group(values: Array, groups: Sequence[str]) -> Array:
    names = list(dict.fromkeys(groups))
    return np.array([sum(v for v, g in zip(values, groups, strict=True) if g == name) for name in names])


@dataclass(frozen=True)
class Noise:
    """Variance of a mean over cases, and of each side's seeds with its degrees of freedom."""

    cases: float
    seeds: tuple[tuple[float, int], ...]
    clusters: int

    @property
    def total(self) -> float:
        return self.cases + sum(part for part, _ in self.seeds)

    def quantile(self, level: float = 0.95) -> float:
        """Return the factor of the standard error: squared half widths of cases and of seeds add up."""
        z = stats.norm.ppf((1 + level) / 2)
        if not any(part > 0 for part, _ in self.seeds):
            return float(z)
        parts = [part * stats.t.ppf((1 + level) / 2, freedom) ** 2 for part, freedom in self.seeds]
        return float(np.sqrt((z**2 * self.cases + sum(parts)) / self.total))

    def effective(self, variance: float, cases: int) -> float:
        if self.total <= 0 or variance <= 0:
            return float(self.clusters)
        return min(float(cases), max(2.0, variance / self.total))


def seed_variance(scores: Array) -> float | None:
    """Return the variance of the mean from the choice of seeds: two-way analysis of variance without the residual."""
    seeds, cases = scores.shape
    if seeds < 2 or cases < 2:
        return None
    residual = scores - scores.mean(1, keepdims=True) - scores.mean(0, keepdims=True) + scores.mean()
    mean_square = (residual**2).sum() / ((seeds - 1) * (cases - 1))
    return float(scores.mean(1).var(ddof=1) / seeds - mean_square / (seeds * cases))


def noise(values: Array, groups: Sequence[str], sides: Sequence[Array]) -> Noise:
    own = sums_by_group(values - values.mean(), groups)
    few = len(own) / (len(own) - 1) if 1 < len(own) < len(values) else 1.0
    seeds = [(max(0.0, part), len(side) - 1) for side in sides if (part := seed_variance(side)) is not None]
    return Noise(few * float((own**2).sum()) / len(values) ** 2, tuple(seeds), len(own))


def wilson(share: float, cases: float, z: float) -> tuple[float, float]:
    """Return the shares p with |p - share| = z * sqrt(p (1 - p) / cases): the roots of a quadratic (Wilson, 1927)."""
    if cases <= 0:
        return 0.0, 1.0
    a, b, c = 1 + z * z / cases, -(2 * share + z * z / cases), share * share
    low, high = sorted(np.roots([a, b, c]).real)
    return float(max(0.0, min(share, low))), float(min(1.0, max(share, high)))


def rate_interval(scores: Array, groups: Sequence[str]) -> tuple[float, float]:
    """Return the 95% interval of a pass rate, over cases and seeds."""
    share = float(scores.mean())
    found = noise(scores.mean(0), groups, [scores])
    return wilson(share, found.effective(share * (1 - share), scores.shape[1]), found.quantile())


def change_interval(before: Array, after: Array, groups: Sequence[str]) -> tuple[float, float, float]:
    """Return the difference of two pass rates on the same cases with its 95% interval (Newcombe 1998, method 10)."""
    found = noise(after.mean(0) - before.mean(0), groups, [before, after])
    old, new = before.mean(0), after.mean(0)
    both, lost, won, neither = (
        float((a * b).mean()) for a, b in ((old, new), (old, 1 - new), (1 - old, new), (1 - old, 1 - new))
    )
    moved = won - lost
    cases = found.effective(lost + won - moved**2, len(old))
    z = found.quantile()
    x, y = both + lost, both + won
    (low_x, high_x), (low_y, high_y) = wilson(x, cases, z), wilson(y, cases, z)
    product = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    excess = cases * (both * neither - lost * won)
    phi = 0.0
    if product > 1e-15:
        phi = (max(0.0, excess - 0.5) if excess > 0 else excess) / cases / np.sqrt(product)
    low = moved - np.sqrt(max(0.0, (y - low_y) ** 2 - 2 * phi * (y - low_y) * (high_x - x) + (high_x - x) ** 2))
    high = moved + np.sqrt(max(0.0, (high_y - y) ** 2 - 2 * phi * (high_y - y) * (x - low_x) + (x - low_x) ** 2))
    return moved, float(min(max(-1.0, low), moved)), float(max(min(1.0, high), moved))


def standard_error(before: Array, after: Array, groups: Sequence[str]) -> float:
    """Return the standard error of the difference of two pass rates, in points, over cases and seeds."""
    found = noise(after.mean(0) - before.mean(0), groups, [before, after])
    cases = before.shape[1]
    unbiased = cases / (cases - 1) if found.clusters == cases > 1 else 1.0
    return 100 * float(np.sqrt(found.total + (unbiased - 1) * found.cases))


@dataclass(frozen=True)
class Loss:
    """A net loss, in points of what the base passes. An end that nothing limits is None."""

    points: float | None
    lower: float | None
    upper: float | None


def mean_group(groups: Sequence[str]) -> float:
    """Return the mean size of the group of a case."""
    return float((sums_by_group(np.ones(len(groups)), groups) ** 2).sum()) / len(groups)


def net_loss(
    base: Array, own: Array, groups: Sequence[str], level: float, seeds: tuple[float, int], times: float = 1.0
) -> Loss:
    """Return the net loss 1 - V / B with one-sided bounds, by searching for the ratios V / B that are not ruled out.

    A ratio r is not ruled out if the residual r B - V is within its standard error (Fieller), or within that of a
    variant that breaks (or fixes) no more than the ratio needs (the floor). `seeds` has the variance of V from the
    choice of seeds, and its degrees of freedom. The bounds are those of `times` as many cases like these.
    """
    x, y = base.mean(0), own.mean(0)
    b, v, cases = float(x.mean()), float(y.mean()), len(x) * times
    if b <= 0:
        return Loss(None, None, None)
    sums = np.array([sums_by_group(x - b, groups), sums_by_group(y - v, groups)])
    found = sums.shape[1]
    clusters = int(len(x) / mean_group(groups) * times)
    if clusters < 2:
        return Loss(100 * (1 - v / b), None, 100.0)
    spread = found / max(1, found - 1) / len(x) ** 2 / times * sums @ sums.T
    effect = floor_effect(base, groups)
    of_cases = stats.t.ppf(level, clusters - 1) ** 2
    of_seeds = (stats.t.ppf(level, seeds[1]) if seeds[1] else stats.norm.ppf(level)) ** 2 * max(0.0, seeds[0])

    def excess(ratio: float | Array) -> Any:
        """Return how far ratios are ruled out: at most 0 if they are not. The floor of a gain is above V / B only."""
        variance = ratio**2 * spread[0, 0] - 2 * ratio * spread[0, 1] + spread[1, 1]
        least = np.where(ratio <= 1, ratio * (1 - ratio), np.where(ratio >= v / b, ratio - 1, 0.0))
        return (ratio * b - v) ** 2 - of_cases * np.maximum(variance, effect * least * b / cases) - of_seeds

    def end(outer: float) -> float:
        """Return the ratio between `outer` and V / B that is the farthest from V / B among those not ruled out."""
        steps = np.linspace(outer, v / b, 20_001)
        inside = int(np.argmax(excess(steps) <= 1e-15)) if np.any(excess(steps) <= 1e-15) else len(steps) - 1
        far, near = steps[max(0, inside - 1)], steps[inside]
        return float(optimize.brentq(excess, far, near)) if excess(near) < 0 < excess(far) else float(near)

    upper = 100 * (1 - end(0.0))
    square = b**2 - of_cases * spread[0, 0]
    if square <= 0:  # the base passes too few cases to limit a gain
        return Loss(100 * (1 - v / b), None, 100.0)
    # Beyond this ratio, the square of the residual exceeds every variance.
    highest = 2 + 2 * v / b + 2 * (of_cases * (effect * b / cases + abs(spread[0, 1])) + b * v) / square + of_seeds / b
    lower = 1 - end(highest)
    # Whoever passes every case has gained 1 / b - 1. A bound beyond this and beyond 100 points limits nothing.
    return Loss(100 * (1 - v / b), None if -lower > max(1.0, 1 / b - 1) else 100 * lower, upper)


def floor_effect(base: Array, groups: Sequence[str]) -> float:
    """Return how many cases that the base passes are in the group of a case that it passes, on average."""
    passes = sums_by_group(base.mean(0), groups)
    return max(1.2, float((passes**2).sum() / passes.sum())) if passes.any() else 1.2


def least_passes(base: Array, groups: Sequence[str], margin: float) -> int:
    """Return how many cases the base must pass before a variant that breaks none is shown to lose less than a share."""
    return math.ceil(floor_effect(base, groups) * stats.norm.ppf(0.95) ** 2 * (1 - margin) / margin)


def cases_needed(
    base: Array, own: Array, groups: Sequence[str], level: float, seeds: tuple[float, int], margin: float
) -> int | None:
    """Return how many cases like these would show this loss to be below the margin (in points); None if none would."""

    def shown(cases: int) -> bool:
        upper = net_loss(base, own, groups, level, seeds, cases / base.shape[1]).upper
        return upper is not None and upper < margin

    if base.mean() <= 0 or 100 * (1 - own.mean() / base.mean()) >= margin or not shown(100_000):
        return None
    low, high = 0, 100_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def chance_noticed(base: float, loss: float, cases: int, seeds: int, group: float) -> float:
    """Return the probability that the two-sided 95% interval of a variant with this true loss is above 0.

    The assumptions are those of `chance_shown`. Without a margin, no floor widens the interval.
    """
    keep = 1 - loss
    between = base * (1 - base) / 5
    answers = keep * base - keep**2 * (between + base**2)
    residual = base * (1 - base) + keep**2 * between + answers / seeds - 2 * keep * between
    effect = 1 + 0.25 * (group - 1)
    error = max(effect * residual / cases, 1e-12)
    width = stats.t.ppf(0.975, max(2, int(cases / group)) - 1) ** 2 * error
    freedom = seeds - 1
    ratios = stats.chi2.ppf((np.arange(32) + 0.5) / 32, freedom) / freedom if freedom else np.zeros(1)
    estimates = np.maximum(0.0, effect * ratios - 1) * answers / (seeds * cases)
    quantile = stats.t.ppf(0.975, freedom) if freedom else stats.norm.ppf(0.975)
    return float(stats.norm.cdf((loss * base - np.sqrt(width + quantile**2 * estimates)) / np.sqrt(error)).mean())


def chance_shown(base: float, margin: float, cases: int, seeds: int, group: float, level: float = 0.95) -> float:
    """Return the probability that a variant without a loss is shown to lose less than the share `margin`.

    `group` is the mean size of the group of a case; results in a group are assumed to have a correlation of 0.25.
    Pass probabilities of cases follow a beta distribution with the concentration 4. The base answers once, the variant
    once a seed, and seeds do not differ; their estimated variance is a multiple of chi-square.
    """
    between = base * (1 - base) / 5
    answers = base - between - base**2
    residual = (1 - margin) ** 2 * base * (1 - base) + between + answers / seeds - 2 * (1 - margin) * between
    effect = 1 + 0.25 * (group - 1)
    error = max(effect * residual / cases, 1e-12)
    clusters = max(2, int(cases / group))
    floor = max(1.2, 1 + (group - 1) * (base + 0.25 * (1 - base))) * margin * (1 - margin) * base / cases
    width = stats.t.ppf(level, clusters - 1) ** 2 * max(error, floor)
    freedom = seeds - 1
    ratios = stats.chi2.ppf((np.arange(32) + 0.5) / 32, freedom) / freedom if freedom else np.zeros(1)
    estimates = np.maximum(0.0, effect * ratios - 1) * answers / (seeds * cases)
    quantile = stats.t.ppf(level, freedom) if freedom else stats.norm.ppf(level)
    return float(stats.norm.cdf((margin * base - np.sqrt(width + quantile**2 * estimates)) / np.sqrt(error)).mean())
