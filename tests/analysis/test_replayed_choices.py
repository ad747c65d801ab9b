"""Tests of the studies that judge runs by both rules for losses, and that repeat choice and confirmation."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.run_results import Finding, LossVerdict
from harness.core.suite import Role, Split
from tests.studies.old_and_new_rule import study, table
from tests.studies.old_rule import new_rule, old_rule
from tests.studies.replayed_choices import SIZES, Recorded, Simulated, confirmed_without_choice, counts, replay
from tests.support import synthetic_runs


def test_a_variant_that_loses_half_is_never_confirmed() -> None:
    """If a variant loses half of what the base model passes, its confirmation refutes it or leaves it open."""
    rng = np.random.default_rng(0)
    found = [confirmed_without_choice(rng, 0.7, 50.0) for _ in range(5)]
    assert Finding.CONFIRMED not in {each.finding for each in found}
    assert {each.where for each in found} == {"beyond"}


def test_a_replay_says_how_the_choice_was_confirmed() -> None:
    """A replay of eight simulated variants ends with the true loss of the chosen one, and with a finding."""
    rng = np.random.default_rng(1)
    source = Simulated(0.95, {f"v{n}": 4.0 * n for n in range(8)})
    found = replay(rng, source, list(source.loss))
    assert found is not None
    assert found.truth in source.loss.values()
    assert counts([found])["choices"] == 1


def test_replays_of_a_run_draw_whole_groups() -> None:
    """Cases are drawn from a finished run with replacement until there are as many as wanted, by groups and seeds."""
    source = Recorded.of(synthetic_runs.results(4, 60, hostile=False, failures=False))
    sheet = source.sheet(np.random.default_rng(2), Role.RETAIN, SIZES[Split.MAIN][Role.RETAIN], source.names)
    assert len(sheet.groups) == sheet.base.shape[1] == SIZES[Split.MAIN][Role.RETAIN]
    assert {own.shape for own in sheet.variants.values()} == {(3, len(sheet.groups))}


def test_the_new_rule_is_that_of_the_run() -> None:
    """The table of both rules has, for each variant of a run, the loss and the verdict that the run's results have."""
    results = synthetic_runs.results(4, 60, hostile=False, failures=False)
    found = study(results)
    losses = {variant.name: variant.loss for variant in results.variants if variant.loss}
    assert {name: row["new"]["points"] for name, row in found["variants"].items()} == pytest.approx(
        {name: loss.points for name, loss in losses.items()}
    )
    assert all(f"| {name} |" in table(found) for name in losses)


def test_the_old_rule_sees_only_what_the_base_model_passes() -> None:
    """A variant that breaks 12 of 30 passes and fixes 12 other cases lost 40 points by the old rule, and none net."""
    base = np.array([[1.0] * 30 + [0.0] * 30])
    variant = np.array([[1.0] * 18 + [0.0] * 12 + [1.0] * 12 + [0.0] * 18])
    groups = [""] * 60
    old, new = old_rule(base, variant, groups, 15), new_rule(base, variant, groups, 15)
    assert (old["lost"], old["verdict"]) == (40.0, str(LossVerdict.LOSES))
    assert (new["net"], new["verdict"]) == (0.0, str(LossVerdict.CANNOT_TELL))
