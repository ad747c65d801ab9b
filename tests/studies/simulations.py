"""Checks the claims of the statistics by simulation; the tests check the same claims with fewer draws.

    python -m tests.studies.simulations --draws 2000 --output reports/studies/statistics.json  (some minutes)

Each row of the output has a claim, its bound and the simulated value.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis import statistics
from harness.analysis.statistics import Scores
from harness.storage.files import write_text
from tests.analysis.test_statistics import coverage, paired

ALPHA = 0.05


def row(claim: str, found: float, *, least: float | None = None, most: float | None = None) -> dict[str, Any]:
    holds = (least is None or found >= least) and (most is None or found <= most)
    return {"claim": claim, "found": round(found, 4), "at_least": least, "at_most": most, "holds": holds}


def wilson() -> Iterator[dict[str, Any]]:
    for cases, least in ((10, 0.90), (40, 0.925), (200, 0.93)):
        found = [coverage(cases, share / 100) for share in range(1, 100)]
        yield row(f"Wilson, n = {cases}: mean coverage, exact", sum(found) / 99, least=0.945, most=0.96)
        yield row(f"Wilson, n = {cases}: least coverage, exact", min(found), least=least)


def differences(rng: np.random.Generator, draws: int) -> Iterator[dict[str, Any]]:
    for cases in (40, 200):
        for discordance in (0.0, 0.1, 0.4):
            for loss in (0.5, 1.0):
                lost, won, held = discordance * loss, discordance * (1 - loss), 0
                for _ in range(draws):
                    found = statistics.difference(*paired(rng, cases, lost, won, 0.8 * (1 - discordance)))
                    held += found.low - 1e-12 <= won - lost <= found.high + 1e-12
                what = f"difference, n = {cases}, {discordance:.0%} discordant, {loss:.0%} of them lost: coverage"
                yield row(what, held / draws, least=0.93)


def tests(rng: np.random.Generator, draws: int) -> Iterator[dict[str, Any]]:
    alarms = sum(statistics.sign_flip(*paired(rng, 80, 0.1, 0.1, 0.6), rng) <= ALPHA for _ in range(draws)) / draws
    yield row("sign-flip, n = 80, 20% discordant: false alarms", alarms, least=0.02, most=0.05)
    found = sum(statistics.sign_flip(*paired(rng, 80, 0.25, 0.05, 0.6), rng) <= ALPHA for _ in range(draws)) / draws
    yield row("sign-flip, n = 80: power for a drop of 20 points", found, least=0.8)
    families = 0
    for _ in range(draws):
        raw = [statistics.sign_flip(*paired(rng, 80, 0.1, 0.1, 0.6), rng) for _ in range(12)]
        families += min(statistics.holm(raw)) <= ALPHA
    yield row("Holm, 12 variants without change: families with any alarm", families / draws, most=0.05)


def seeds(rng: np.random.Generator, draws: int) -> Iterator[dict[str, Any]]:
    """Yield how often a variant is called better or worse although its seeds differ from the base only by noise."""
    for spread, cases, many in ((0.0, 80, 3), (0.05, 80, 3), (0.1, 80, 3), (0.12, 200, 3), (0.05, 80, 2)):
        alarms = 0
        for _ in range(draws):
            found = statistics.difference(*unchanged(rng, spread, cases, many))
            alarms += not found.low <= 0 <= found.high
        what = f"{many} seeds that differ by {100 * spread:.0f} points, n = {cases}: called better or worse"
        yield row(what, alarms / draws, most=0.05)


def unchanged(rng: np.random.Generator, spread: float, cases: int, many: int) -> tuple[Scores, Scores]:
    hard = rng.uniform(0.4, 0.6, cases)
    before = (rng.random((1, cases)) < hard).astype(float)
    after = rng.random((many, cases)) < np.clip(hard + rng.normal(0, spread, (many, 1)), 0, 1)
    return before, after.astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2_000)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    given = parser.parse_args()
    rng = np.random.default_rng(2026)
    parts = (differences, tests, seeds)
    rows = [*wilson(), *(each for part in parts for each in part(rng, given.draws))]
    command = f"python -m tests.studies.simulations --draws {given.draws} --output {given.output}"
    write_text(given.output, json.dumps({"command": command, "draws": given.draws, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
