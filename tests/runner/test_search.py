"""Tests of searches: which variants are proposed, how a search ends, and that an interrupted one is the same search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import log10

import pytest

from harness.core.run import RunManifest, TrialRecord
from harness.core.settings import Settings
from harness.core.suite import Role
from harness.core.training_outcome import Status
from harness.runner.search import run_search
from harness.suites.grids import parse_plan
from tests.support.synthetic_runs import case, manifest, record, score, suite, training

pytest.importorskip("optuna")
GRID = """\
settings: {epochs: 4}
search:
  trials: 11
  ranges:
    learning_rate: {low: 1e-5, high: 1e-1, log: true}
    rank: {low: 2, high: 64, log: true}
  choices:
    target_modules: [qv, all-linear]
"""
SUITE = suite(
    [case(f"g{n}", Role.GENERALISE) for n in range(60)] + [case(f"r{n}", Role.RETAIN) for n in range(60)], margin=15.0
)
PLAN = parse_plan(GRID, "grid.yaml")
RUN: RunManifest = replace(manifest(SUITE, PLAN.variants, (0,)), plan=PLAN)


class Killed(BaseException):
    """The process was killed."""


def quality(settings: Settings) -> float:
    """Return a smooth surface whose best learning rate is 1e-3; all-linear is better, and the rank hardly matters."""
    far = (log10(settings.learning_rate) + 3) ** 2
    return max(0.0, 0.95 - 0.2 * far - (0.2 if isinstance(settings.target_modules, tuple) else 0.0))


def forgets(settings: Settings) -> float:
    """Return the share of `retain` cases that are lost: all above a learning rate of 3e-3, almost none below."""
    return 0.5 if settings.learning_rate > 3e-3 else 0.0


@dataclass
class Trainer:
    """Runs batches without training; it may be killed before a batch."""

    killed_before: int = -1
    kept: dict[str, TrialRecord] = field(default_factory=dict)
    batches: list[tuple[str, ...]] = field(default_factory=list)
    trained: int = 0

    def __call__(self, batch: RunManifest) -> tuple[TrialRecord, ...]:
        if len(self.batches) == self.killed_before:
            raise Killed
        self.batches.append(tuple(variant.name for variant in batch.plan.variants))
        for variant in batch.plan.variants:
            if variant.id not in self.kept:
                passed = {"g": quality(variant.settings), "r": 1 - forgets(variant.settings)}
                answers = {
                    each.id: "good" if int(each.id[1:]) < 60 * passed[each.id[0]] else "bad" for each in SUITE.cases
                }
                self.kept[variant.id] = record(variant, answers, trained=training())
                self.trained += 1
        own = tuple(self.kept[variant.id] for variant in batch.plan.variants)
        return (record(None, {each.id: "good" if each.role is Role.RETAIN else "bad" for each in SUITE.cases}), *own)


def search(trainer: Callable[[RunManifest], tuple[TrialRecord, ...]], run: RunManifest = RUN) -> RunManifest:
    saved: list[RunManifest] = []
    found, _ = run_search(run, score, trainer, saved.append)
    assert not saved or saved[-1] == found
    return found


@pytest.fixture(scope="module")
def searched() -> tuple[Trainer, RunManifest]:
    trainer = Trainer()
    return trainer, search(trainer)


def test_a_search_trains_as_many_variants_as_it_says(searched: tuple[Trainer, RunManifest]) -> None:
    """A search of 11 variants has batches as wide as a pass; no variant is trained twice, and all are in the plan."""
    trainer, run = searched
    assert [len(batch) for batch in trainer.batches] == [8, 3]
    assert len({variant.settings for variant in run.plan.variants}) == len(run.plan.trials) == 11
    assert [name for batch in trainer.batches for name in batch] == [variant.name for variant in run.plan.variants]


def test_a_search_begins_with_the_ends_of_all_ranges() -> None:
    """The first batch is part of the plan, and has both ends of each range and every choice."""
    rates = sorted(variant.settings.learning_rate for variant in PLAN.variants)
    ranks = sorted(variant.settings.rank for variant in PLAN.variants)
    assert (rates[0], rates[-1], ranks[0], ranks[-1]) == (1e-5, 1e-1, 2, 64)
    assert len({variant.settings.target_modules for variant in PLAN.variants}) == 2
    assert all(variant.settings.alpha == 2 * variant.settings.rank for variant in PLAN.variants)


def test_a_search_finds_good_variants(searched: tuple[Trainer, RunManifest]) -> None:
    """Later batches are near the best settings that forget little, and better than the first."""
    _, run = searched
    good = [quality(v.settings) if not forgets(v.settings) else 0.0 for v in run.plan.variants]
    assert max(good) > 0.9
    assert sum(good[8:]) / 3 > sum(good[:8]) / 8 + 0.2


@pytest.mark.parametrize("moment", range(2))
def test_an_interrupted_search_is_the_same_search(searched: tuple[Trainer, RunManifest], moment: int) -> None:
    """A search that was killed before any of its batches proposes the same variants and trains nothing twice."""
    killed = Trainer(killed_before=moment)
    with pytest.raises(Killed):
        search(killed)
    again = Trainer(kept=killed.kept)
    assert search(again) == searched[1]
    assert killed.trained + again.trained == 11


def test_a_search_waits_for_a_batch_that_is_not_finished() -> None:
    """If the time limit leaves a trial of a batch undone, no further batch begins."""
    trainer = Trainer()

    def limited(batch: RunManifest) -> tuple[TrialRecord, ...]:
        return trainer(batch)[:-1] if len(trainer.batches) else trainer(batch)

    assert len(search(limited).plan.variants) == 11


def test_variants_that_diverge_are_told(searched: tuple[Trainer, RunManifest]) -> None:
    """A search goes on after variants that diverged, and avoids their settings."""
    trainer = Trainer()

    def diverging(batch: RunManifest) -> tuple[TrialRecord, ...]:
        base, *own = trainer(batch)
        hot = (r for r in own if r.settings and r.settings.learning_rate > 3e-3)
        ended = {r.trial: replace(r, status=Status.DIVERGED, answers={}) for r in hot}
        return (base, *(ended.get(r.trial, r) for r in own))

    later = [variant.settings.learning_rate for variant in search(diverging).plan.variants[8:]]
    assert sum(rate > 3e-3 for rate in later) <= len(later) / 3


def test_a_small_space_ends_the_search_early() -> None:
    """A search of a space with fewer variants than it may train tries each of them once."""
    plan = parse_plan("search: {trials: 20, ranges: {rank: {low: 2, high: 5}}}", "grid.yaml")
    run = search(Trainer(), replace(RUN, plan=plan))
    assert sorted(variant.settings.rank for variant in run.plan.variants) == [2, 3, 4, 5]
