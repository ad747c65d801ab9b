"""The trials that a run may train: the trials of the grid, and the trials that confirm the best variant."""

from __future__ import annotations

from collections.abc import Iterable

from harness.core.run import RunManifest
from harness.core.settings import Trial, Variant
from harness.suites.grids import trial_id


def all_trials(manifest: RunManifest) -> list[Trial]:
    """The grid's trials, and for every variant the trials that would confirm it, since any variant may be chosen."""
    variants, seeds = manifest.plan.variants, manifest.confirm_seeds
    return [*manifest.plan.trials, *(trial for each in variants for trial in confirmation_trials(each, seeds))]


def confirmation_trials(variant: Variant, seeds: Iterable[int]) -> tuple[Trial, ...]:
    """The trials of a variant under the given seeds."""
    settings = variant.settings
    return tuple(Trial(trial_id(settings, seed), variant.id, settings, seed) for seed in seeds)
