"""Tests of the report's figures on the effects of settings."""

from __future__ import annotations

from dataclasses import replace

from harness.report import pairwise, setting_effects
from harness.report.pass_rates import scores_by_role
from tests.support.report_runs import sample_run


def test_settings_that_vary_together_are_one() -> None:
    """If two settings always vary together, as rank and alpha do in this run, the report shows them as one effect."""
    whole = sample_run()
    found = setting_effects.effects(whole, scores_by_role(whole, whole.samples))
    assert {effect.setting for effect in found} == {"Learning rate", "Rank, alpha"}
    rate = next(effect for effect in found if effect.setting == "Learning rate")
    assert rate.levels[0].value == "1e-4"
    assert sum(level.variants for level in rate.levels) == len(whole.variants)
    assert rate.levels[1].matched.endswith("pair")
    assert [e.spread or 0 for e in found] == sorted((e.spread or 0 for e in found), reverse=True)


def test_variants_without_settings_have_no_effects() -> None:
    """If there are no variants, there are no effects; if there is a single one, there is no table of pairs."""
    whole = sample_run()
    assert setting_effects.effects(replace(whole, variants=()), {}) == ()
    assert pairwise.pairwise(replace(whole, variants=whole.variants[:1]), {}) is None
