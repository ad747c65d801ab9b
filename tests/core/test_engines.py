"""Tests of the engines that train adapters."""

from __future__ import annotations

from dataclasses import replace

from harness.core.engines import RECIPES, Engine
from harness.core.settings import Settings
from tests.support.fake_workers import SETUP


def test_the_fused_engine_leaves_single_trials_to_the_reference_engine() -> None:
    """A trial that is trained alone is trained by the reference engine if its run uses the fused one."""
    assert (Engine.FUSED.alone, Engine.REFERENCE.alone) == (Engine.REFERENCE, Engine.REFERENCE)


def test_settings_that_cannot_be_fused_are_trained_alone() -> None:
    """In a fused run, a trial with packing has the engine and the cache key that it has in a reference run."""
    fused, packing = replace(SETUP, engine=Engine.FUSED), Settings(packing=True)
    assert (fused.engine_of(packing), fused.engine_of(Settings())) == (Engine.REFERENCE, Engine.FUSED)
    assert fused.training_id(packing, 0) == replace(SETUP, engine=Engine.REFERENCE).training_id(packing, 0)


def test_every_engine_that_trains_has_a_version() -> None:
    """Every engine that a run can record has a version, which is part of its cache keys."""
    assert set(RECIPES) == set(Engine) - {Engine.AUTO}
