"""Which settings matter: what became of the variants that share a value, and of those that differ in nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from harness.analysis import statistics
from harness.core import wording
from harness.core.results import Outcome, Results
from harness.core.settings import AXES
from harness.core.suite import Role
from harness.report import rates, words


@dataclass(frozen=True)
class Level:
    """The variants that share one value of a setting. Shares are means over them; None where none finished."""

    value: str
    variants: int
    quality: float | None
    kept: float | None
    """Pass rate on retain and avoid together."""
    alike: str
    """Against the first value, over pairs of variants that differ in nothing else."""


@dataclass(frozen=True)
class Effect:
    setting: str
    levels: tuple[Level, ...]
    spread: float | None
    """Points of quality between the best value's mean and the worst's."""


def effects(results: Results, marks: rates.Table) -> tuple[Effect, ...]:
    """By what they move, most first. Settings that always vary together are one: nobody can tell them apart."""
    variants = [v for v in results.variants if v.settings and v.differs]
    found = [_effect(results, variants, names, marks) for names in _together(variants)]
    return tuple(sorted(found, key=lambda effect: -(effect.spread or 0.0)))


def _together(variants: Sequence[Outcome]) -> list[list[str]]:
    """Names of settings, those that divide the variants alike in one list."""
    names = list(variants[0].differs) if variants else []

    def division(name: str) -> tuple[int, ...]:
        values = [_key(v.differs[name]) for v in variants]
        return tuple(values.index(value) for value in values)

    order = sorted(names, key=lambda name: (division(name), names.index(name)))
    grouped = [list(run) for _, run in groupby(order, key=division)]
    return sorted(grouped, key=lambda run: names.index(run[0]))


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _order(value: Any) -> tuple[bool, Any]:
    """Numbers by size, words and lists of modules as they are written."""
    return (False, value) if isinstance(value, int | float) else (True, str(value))


def _effect(results: Results, variants: Sequence[Outcome], names: Sequence[str], marks: rates.Table) -> Effect:
    def value(variant: Outcome) -> tuple[Any, ...]:
        return tuple(_key(variant.differs[name]) for name in names)

    values = sorted({value(v) for v in variants}, key=lambda v: [_order(x) for x in v])
    objective = results.choice.objective
    levels = []
    for own in values:
        members = [v for v in variants if value(v) == own]
        pairs = _pairs(variants, names, values[0], own) if own != values[0] else []
        qualities = [_share(v, (objective,)) for v in members]
        kept = [_share(v, (Role.RETAIN, Role.AVOID)) for v in members]
        shown = ", ".join(words.setting(n, x) for n, x in zip(names, own, strict=True))
        levels.append(Level(shown, len(members), _mean(qualities), _mean(kept), _alike(pairs, objective, marks)))
    known = [level.quality for level in levels if level.quality is not None]
    title = ", ".join(AXES[n].title if k == 0 else words.lower(AXES[n].title) for k, n in enumerate(names))
    return Effect(title, tuple(levels), 100 * (max(known) - min(known)) if len(known) > 1 else None)


def _share(variant: Outcome, roles: Sequence[Role]) -> float | None:
    known = [variant.rates[role] for role in roles if role in variant.rates]
    total = sum(rate.total for rate in known)
    return sum(rate.passed for rate in known) / total if total else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _pairs(
    variants: Sequence[Outcome], names: Sequence[str], first: tuple[Any, ...], own: tuple[Any, ...]
) -> list[tuple[str, str]]:
    def rest(variant: Outcome) -> dict[str, Any]:
        return {k: _key(v) for k, v in variant.differs.items() if k not in names}

    def has(variant: Outcome, value: tuple[Any, ...]) -> bool:
        return tuple(_key(variant.differs[name]) for name in names) == value

    return [
        (a.name, b.name)
        for a in variants
        for b in variants
        if has(a, first) and has(b, own) and rest(a) == rest(b) and a.rates and b.rates
    ]


def _alike(pairs: Sequence[tuple[str, str]], objective: Role, marks: rates.Table) -> str:
    """The mean difference over the pairs, with its interval: a pair's trainings count as more seeds of the same."""
    found = [(marks.get((a, objective)), marks.get((b, objective))) for a, b in pairs]
    known = [(a, b) for a, b in found if a and b and a.cases and a.cases == b.cases]
    if not known:
        return ""
    import numpy as np

    before, after = (np.concatenate([pair[side].scores for pair in known]) for side in (0, 1))
    moved = statistics.difference(before, after, known[0][0].groups)
    points = f"{100 * moved.value:+.0f} ({100 * moved.low:+.0f} to {100 * moved.high:+.0f})"
    return f"{points}, {wording.plural(len(known), 'pair')}"


@dataclass(frozen=True)
class Gap:
    """How much more of the objective one variant passes than another, in points; `told`: the interval excludes 0."""

    text: str
    told: str
    """better, worse or unclear."""
    hint: str


@dataclass(frozen=True)
class Pairwise:
    """Every variant (rows) against every other (columns)."""

    names: tuple[tuple[int, str], ...]
    rows: tuple[tuple[Gap | None, ...], ...]
    unclear: int
    pairs: int


def pairwise(results: Results, marks: rates.Table) -> Pairwise | None:
    """None where there are not two variants to compare."""
    objective = results.choice.objective
    known = [(n, v.name) for n, v in enumerate(results.variants, 1) if _asked(marks, v.name, objective)]
    if len(known) < 2:
        return None
    found = {
        (a, b): _difference(marks[b, objective], marks[a, objective])
        for row, (_, a) in enumerate(known)
        for _, b in known[:row]
    }
    both = found | {(b, a): _turned(difference) for (a, b), difference in found.items()}
    shown = tuple(tuple(_words(both[a, b]) if a != b else None for _, b in known) for _, a in known)
    unclear = sum(_words(difference).told == "unclear" for difference in found.values())
    return Pairwise(tuple(known), shown, unclear, len(found))


def _asked(marks: rates.Table, name: str, objective: Role) -> bool:
    own = marks.get((name, objective))
    return bool(own and own.cases)


def _difference(before: rates.Marks, after: rates.Marks) -> statistics.Interval | None:
    """On the cases that both have a score for, over both noises."""
    common = [case for case in before.cases if case in after.cases]
    if not common:
        return None
    places = [before.cases.index(case) for case in common]
    later = [after.cases.index(case) for case in common]
    groups = [before.groups[place] for place in places]
    return statistics.difference(before.scores[:, places], after.scores[:, later], groups)


def _turned(found: statistics.Interval | None) -> statistics.Interval | None:
    return statistics.Interval(-found.value, -found.high, -found.low, found.cases) if found else None


def _words(found: statistics.Interval | None) -> Gap:
    if found is None:
        return Gap(words.ABSENT, "unclear", "no case in common")
    told = "better" if found.low > 0 else "worse" if found.high < 0 else "unclear"
    hint = f"{100 * found.low:+.0f} to {100 * found.high:+.0f} points"
    return Gap(f"{100 * found.value + 0.0:+.0f}", told, hint)
