"""Forecasts what a race saves: simulated races of the same plan and suite, decided by the rule of `racing`.

The simulated variants differ as those of small grids do: the objective's cases have different difficulties, variants
have different final pass rates, some fail, some lose much of what the base model can do, and all learn quickly at
first. These are assumptions; what a race really saves depends on how different its variants are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.analysis import racing
from harness.analysis.losses import GUARDED
from harness.analysis.racing import Entrant, PlannedLook, Race
from harness.analysis.score_table import Cell, ScoreTable
from harness.analysis.statistics import Scores
from harness.core.settings import Variant
from harness.core.suite import Case, Split, Suite

RACES = 40
"""Number of simulated races of a forecast."""
BASE_RATE = 0.7
"""Assumed pass rate of the base model on `retain` and `avoid` cases."""
_CELLS = (Cell(0, 1, 0.0), Cell(1, 1, 1.0))


@dataclass(frozen=True)
class Differences:
    """How the simulated variants differ. Abilities are on the logit scale."""

    ability: float = 0.7
    """Standard deviation of the variants' final abilities."""
    failing: float = 0.15
    """Share of the variants that hardly learn."""
    forgetting: float = 0.3
    """Share of the variants that lose 20 to 60 points of what the base passes. The others lose at most 10."""
    difficulty: float = 1.5
    """Standard deviation of the difficulty of groups of cases."""
    seeds: float = 0.3
    """Standard deviation of the abilities of a variant's seeds."""
    speed: float = 0.24
    """Share of a training after which 63% of the final pass rate is reached."""
    speeds: float = 0.0
    """Standard deviation of the logarithm of the variants' speeds."""
    kept: float = 0.8
    """Share of the cases whose chance result is the same at the next look."""


@dataclass(frozen=True)
class Raced:
    """The outcome of one race."""

    stopped: Mapping[str, int]
    """Variant id to the position of the look at which it stopped."""
    best_stopped: bool
    """Whether the variant stopped that is truly the best of those that lose less than the margin."""


@dataclass(frozen=True)
class Part:
    """What a run does in one go: it trains variants, the same share of each, and asks all of them the same cases."""

    variants: tuple[Variant, ...]
    seeds: int
    shares: Mapping[str, float]
    """Variant id to the share of its epochs that is trained."""
    cases: int

    @property
    def answers(self) -> int:
        return len(self.variants) * self.seeds * self.cases


@dataclass(frozen=True)
class Forecast:
    """What simulated races save, as shares of the full run. Each is a mean over races."""

    training: float
    """Share of the training that is saved."""
    low: float
    high: float
    """The 10% and the 90% quantile of the share of the training that is saved."""
    asked: float
    """Number of answers of a race, relative to those of the full run."""
    best_stopped: float
    """Share of the races that stopped the best variant."""
    whole: Part
    """The full run."""
    parts: tuple[tuple[Part, ...], ...]
    """The parts of each race."""

    def saved(self, cost: Callable[[Part], float]) -> float:
        """Return the share of the full run's cost that races save, if this is the cost of a part."""
        return 1 - float(np.mean([sum(map(cost, each)) for each in self.parts])) / max(cost(self.whole), 1e-9)


def forecast(
    suite: Suite,
    variants: Sequence[Variant],
    seeds: int,
    weights: Mapping[str, float],
    *,
    races: int = RACES,
    differences: Differences = Differences(),
) -> Forecast:
    """Simulate races of these variants. `weights` has the cost of each variant's whole training, in any unit."""
    race = racing.race_of(variants, seeds)
    ran = [simulate(suite, race, variants, np.random.default_rng(n), differences) for n in range(races)]
    all_ = Part(tuple(variants), seeds, {each.id: 1.0 for each in variants}, len(suite.of(Split.MAIN)))
    parts = [tuple(_parts(suite, race, variants, each)) for each in ran]
    training = [sum(_training(one, weights) for one in each) / _training(all_, weights) for each in parts]
    low, high = (float(each) for each in np.quantile(training, (0.9, 0.1)))
    return Forecast(
        training=1 - float(np.mean(training)),
        low=1 - low,
        high=1 - high,
        asked=float(np.mean([sum(one.answers for one in each) / all_.answers for each in parts])),
        best_stopped=float(np.mean([each.best_stopped for each in ran])),
        whole=all_,
        parts=tuple(parts),
    )


def _training(part: Part, weights: Mapping[str, float]) -> float:
    return part.seeds * sum(weights[each.id] * part.shares[each.id] for each in part.variants)


def _parts(suite: Suite, race: Race, variants: Sequence[Variant], raced: Raced) -> Iterator[Part]:
    """Yield the parts of a race: up to each look, and from the last look to the end."""
    main, asked = len(suite.of(Split.MAIN)), len(racing.cases_of(suite))
    done = {variant.id: 0.0 for variant in variants}
    for position, look in enumerate((*race.looks, PlannedLook())):
        left = [each for each in variants if raced.stopped.get(each.id, position) >= position]
        if race.seeds > 1:
            seeds = 1 if position < len(race.looks) else race.seeds - len(race.looks)
            yield Part(tuple(left), seeds, {each.id: 1.0 for each in left}, main)
            continue
        left = [each for each in left if done[each.id] < 1]
        until = {each.id: race.trained(look, each) for each in left}
        for some, cases in (
            ([each for each in left if until[each.id] < 1], asked),
            ([each for each in left if until[each.id] >= 1], main),
        ):
            if some:
                yield Part(tuple(some), 1, {each.id: until[each.id] - done[each.id] for each in some}, cases)
        done |= until


def simulate(
    suite: Suite,
    race: Race,
    variants: Sequence[Variant],
    rng: np.random.Generator,
    differences: Differences = Differences(),
) -> Raced:
    """Simulate one race of variants with random differences."""
    field_ = _Field(suite, variants, rng, differences)
    stopped: dict[str, int] = {}
    for position, look in enumerate(race.looks):
        left = [variant for variant in variants if variant.id not in stopped]
        gone = racing.leaving(suite, race, [field_.entrant(race, look, each) for each in left])
        stopped |= {each.id: position for each in left if each.id in gone and race.trained(look, each) < 1}
    return Raced(stopped, field_.best in stopped)


@dataclass
class _Field:
    """The variants of a simulated race, with their chances and what they have drawn so far."""

    suite: Suite
    variants: Sequence[Variant]
    rng: np.random.Generator
    differences: Differences
    _drawn: dict[str, Scores] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng, way, count = self.rng, self.differences, len(self.variants)
        cases = racing.cases_of(self.suite)
        wanted = racing.objective_of(self.suite)
        self._objective = [case for case in cases if case.role is wanted]
        self._guarded = [case for case in cases if case.role in GUARDED and case.role is not wanted]
        self._difficulty = self._by_group(self._objective, way.difficulty)
        ability = np.where(rng.random(count) < way.failing, -4.0, 1.0 + way.ability * rng.standard_normal(count))
        lossy = rng.random(count) < way.forgetting
        loss = np.where(lossy, rng.uniform(0.2, 0.6, count), rng.uniform(0.0, 0.1, count))
        speed = way.speed * np.exp(way.speeds * rng.standard_normal(count))
        names = [variant.id for variant in self.variants]
        self._ability, self._loss, self._speed = (
            dict(zip(names, each.tolist(), strict=True)) for each in (ability, loss, speed)
        )
        self._shift = {name: float(way.seeds * rng.standard_normal()) for name in names}
        retained = self._by_group(self._guarded, way.difficulty)
        self._able = _logistic(retained + np.log(BASE_RATE / (1 - BASE_RATE)) * 1.5)
        passed = rng.random(len(self._guarded)) < self._able
        self._base = ScoreTable((0,), {c.id: {0: _CELLS[int(p)]} for c, p in zip(self._guarded, passed, strict=True)})

    @property
    def best(self) -> str:
        """The variant with the highest final pass rate of those that lose less than the margin, if there are any."""
        safe = [name for name, loss in self._loss.items() if 100 * loss < self.suite.margin or not self._guarded]
        return max(safe, key=lambda name: float(self._chances(name, 1.0)[: len(self._objective)].mean()), default="")

    def entrant(self, race: Race, look: PlannedLook, variant: Variant) -> Entrant:
        """Return a variant at a look, with the answers under its first seed."""
        name, size = variant.id, len(self._objective) + len(self._guarded)
        share = race.seeds * race.trained(look, variant)
        drawn, old = self.rng.random(size), self._drawn.get(name)
        if old is not None:
            drawn = np.where(self.rng.random(size) < self.differences.kept, old, drawn)
        self._drawn[name] = drawn
        passed = drawn < self._chances(name, share, self._shift[name])
        cells = {
            case.id: {0: _CELLS[int(good)]}
            for case, good in zip([*self._objective, *self._guarded], passed, strict=True)
        }
        return Entrant(name, ScoreTable((0,), cells), self._base, (0,), share, more_seeds=race.seeds > 1)

    def _chances(self, name: str, share: float, shift: float = 0.0) -> Scores:
        learned = (1 - np.exp(-share / self._speed[name])) / (1 - np.exp(-1 / self._speed[name]))
        objective = learned * _logistic(self._ability[name] + shift + self._difficulty)
        return np.concatenate([objective, self._able * (1 - self._loss[name] * share)])

    def _by_group(self, cases: Sequence[Case], spread: float) -> Scores:
        """Draw the difficulty of each case. Half of its variance is shared by the cases of a group."""
        groups = [case.group or case.id for case in cases]
        common = {group: self.rng.standard_normal() for group in dict.fromkeys(groups)}
        own = self.rng.standard_normal(len(cases))
        both = np.array([common[group] for group in groups]) + own
        return np.asarray(spread * both / np.sqrt(2), dtype=np.float64)


def _logistic(x: Scores) -> Scores:
    return np.asarray(1 / (1 + np.exp(-x)), dtype=np.float64)
