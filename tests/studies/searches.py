"""Measures searches on smooth surfaces: how good a search is beside a grid of 24 variants with twice the training.

    python -m tests.studies.searches --surfaces 200
    python -m tests.studies.searches --run RUN --surfaces 200

A surface gives each variant a true pass rate on the objective: a quadratic function of the logarithms of learning rate
and rank and of the rehearsal, on the logit scale. It is drawn at random, or fitted to the variants of a finished run.
Results are drawn from it for 60 cases. Both ways choose the variant with the best result, and the study compares the
true rates of the two choices.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, log10
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.analysis.settings_search import Told, proposals
from harness.core.job import WIDTH
from harness.core.run_results import Results
from harness.core.settings import Settings
from harness.storage.runs import find_run
from harness.suites.grids import parse_plan

CASES = 60
RATES, RANKS, REHEARSAL = (1e-4, 3e-4, 1e-3, 3e-3), (4, 16), (0, 60, 120)
"""The cells of the grid."""
GRID = """\
search:
  trials: {trials}
  ranges:
    learning_rate: {{low: 1e-4, high: 3e-3, log: true}}
    rank: {{low: 4, high: 16, log: true}}
    rehearsal: {{low: 0, high: 120}}
"""


@dataclass(frozen=True)
class Surface:
    """The true pass rate of each variant: the logistic function of a quadratic function of its settings."""

    weights: NDArray[np.float64]

    def rate(self, settings: Settings) -> float:
        return 1 / (1 + exp(-float(features(settings) @ self.weights)))


def features(settings: Settings) -> NDArray[np.float64]:
    """Return the terms of the quadratic function: settings and their squares, about from -1 to 1."""
    x = (log10(settings.learning_rate) + 3.25) / 0.75
    y, z = (log10(settings.rank) - 0.9) / 0.3, settings.rehearsal / 60 - 1
    return np.array([1, x, x * x, y, z, x * z])


def drawn(rng: np.random.Generator) -> Surface:
    """Draw a surface with a best learning rate, a small influence of the rank, and more or less of rehearsal."""
    best = rng.uniform(-0.8, 0.8)
    bend = rng.uniform(0.5, 3.0)
    own = [1.5 - bend * best * best, 2 * bend * best, -bend, rng.normal(0, 0.2), rng.normal(0, 0.4), rng.normal(0, 0.2)]
    return Surface(np.array(own))


def fitted(results: Results) -> Surface:
    """Fit a surface to the pass rates of a run's variants, by least squares on the logit scale."""
    rows, values = [], []
    for variant in results.variants:
        rate = variant.rates.get(results.choice.objective)
        if variant.settings and rate and rate.value is not None:
            share = (rate.passed + 0.5) / (rate.total + 1)
            rows.append(features(variant.settings))
            values.append(np.log(share / (1 - share)))
    found = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return Surface(found)


def seen(surface: Surface, settings: Settings, rng: np.random.Generator) -> Told:
    return Told(settings, rng.binomial(CASES, surface.rate(settings)) / CASES, -1.0)


def by_grid(surface: Surface, rng: np.random.Generator) -> float:
    """Return the true rate of the variant that the grid chooses."""
    cells = [
        Settings(learning_rate=a, rank=b, alpha=2 * b, rehearsal=c) for a, b, c in product(RATES, RANKS, REHEARSAL)
    ]
    return surface.rate(max((seen(surface, cell, rng) for cell in cells), key=lambda one: one.value).settings)


def by_search(surface: Surface, rng: np.random.Generator, trials: int, seed: int) -> float:
    """Return the true rate of the variant that a search chooses after this number of variants."""
    plan = parse_plan(GRID.format(trials=trials), "grid.yaml")
    assert plan.search
    told = [seen(surface, variant.settings, rng) for variant in plan.variants]
    while len(told) < trials:
        known = [each.settings for each in told]
        found = proposals(plan.search, told, known, min(WIDTH, trials - len(told)), seed)
        if not found:
            break
        told += [seen(surface, settings, rng) for settings in found]
    return surface.rate(max(told, key=lambda one: one.value).settings)


def compared(surfaces: Sequence[Surface], trials: int) -> Iterator[tuple[float, float]]:
    """Yield the true rates of the choices of a grid and of a search, on each surface."""
    for number, surface in enumerate(surfaces):
        rng = np.random.default_rng(number)
        yield by_grid(surface, rng), by_search(surface, rng, trials, number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", type=int, default=200)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--trials", type=int, nargs="+", default=[12, 24])
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    if given.run:
        surfaces = [fitted(find_run(given.run).results())] * given.surfaces
    else:
        surfaces = [drawn(rng) for _ in range(given.surfaces)]
    for trials in given.trials:
        both = list(compared(surfaces, trials))
        behind = 100 * np.array([grid - search for grid, search in both])
        print(
            f"search of {trials} variants, grid of {len(RATES) * len(RANKS) * len(REHEARSAL)}: at least as good in "
            f"{100 * np.mean(behind <= 0):.0f}%, within 1 point in {100 * np.mean(behind <= 1):.0f}%, within 3 points "
            f"in {100 * np.mean(behind <= 3):.0f}% of {len(both)}; {behind.mean():+.1f} points behind on average"
        )


if __name__ == "__main__":
    main()
