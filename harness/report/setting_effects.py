"""Effect of each setting: pass rates by value, and comparisons of variants that differ in no other setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from harness.analysis import statistics
from harness.core import wording
from harness.core.run_results import Outcome, Results
from harness.core.setting_text import in_report
from harness.core.settings import AXES
from harness.core.suite import Role
from harness.report import formatting
from harness.report.pass_rates import ScoresByRole, shared_cases


@dataclass(frozen=True)
class Level:
    """The variants that share one value of a setting.

    `quality` (pass rate on the objective) and `kept` are means over these variants; None if none of them finished.
    """

    value: str
    variants: int
    quality: float | None
    kept: float | None
    """Pass rate on retain and avoid cases together."""
    matched: str
    """Text that compares this value with the first one, over pairs of variants that differ only in this setting.

    It gives the mean difference in score, its interval and the number of pairs. Empty if there is nothing to compare.
    """


@dataclass(frozen=True)
class Effect:
    """One setting with its values. Settings that always change together are treated as one."""

    setting: str
    levels: tuple[Level, ...]
    spread: float | None
    """Difference in quality between the best and the worst value, in percentage points."""


def effects(results: Results, scores: ScoresByRole) -> tuple[Effect, ...]:
    """Return the effect of each setting, the largest first.

    Settings that always change together are treated as one, because their effects cannot be separated.
    """
    variants = [v for v in results.variants if v.settings and v.differs]
    found = [_effect(results, variants, names, scores) for names in _together(variants)]
    return tuple(sorted(found, key=lambda effect: -(effect.spread or 0.0)))


def _together(variants: Sequence[Outcome]) -> list[list[str]]:
    """Return the settings that differ, with those that always change together in one list."""
    names = list(variants[0].differs) if variants else []

    def division(name: str) -> tuple[int, ...]:
        values = [_key(v.differs[name]) for v in variants]
        return tuple(values.index(value) for value in values)

    order = sorted(names, key=lambda name: (division(name), names.index(name)))
    grouped = [list(run) for _, run in groupby(order, key=division)]
    return sorted(grouped, key=lambda run: names.index(run[0]))


def _key(value: Any) -> Any:
    return tuple(map(_key, value)) if isinstance(value, list) else value


def _order(value: Any) -> tuple[bool, Any]:
    """Return the sort key of a value: numbers by size, then texts and lists in alphabetical order."""
    return (False, value) if isinstance(value, int | float) else (True, str(value))


def _effect(results: Results, variants: Sequence[Outcome], names: Sequence[str], scores: ScoresByRole) -> Effect:
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
        shown = ", ".join(in_report(n, x) for n, x in zip(names, own, strict=True))
        levels.append(Level(shown, len(members), _mean(qualities), _mean(kept), _matched(pairs, objective, scores)))
    known = [level.quality for level in levels if level.quality is not None]
    title = ", ".join(
        AXES[n].title if k == 0 else formatting.within_sentence(AXES[n].title) for k, n in enumerate(names)
    )
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


def _matched(pairs: Sequence[tuple[str, str]], objective: Role, scores: ScoresByRole) -> str:
    """Write the mean difference between the variants of all pairs, with its interval.

    The scores of the pairs are pooled as if each pair were another seed, on the cases for which all of them have
    scores.
    """
    found = [(scores.get((a, objective)), scores.get((b, objective))) for a, b in pairs]
    known = [(a, b) for a, b in found if a and b and a.cases and b.cases]
    common = shared_cases(side for pair in known for side in pair) if known else []
    if not common:
        return ""
    import numpy as np

    before, after = (np.concatenate([pair[side].on(common).scores for pair in known]) for side in (0, 1))
    moved = statistics.difference(before, after, known[0][0].on(common).groups)
    points = f"{100 * moved.value:+.0f} ({100 * moved.low:+.0f} to {100 * moved.high:+.0f})"
    return f"{points}, {wording.plural(len(known), 'pair')}"
