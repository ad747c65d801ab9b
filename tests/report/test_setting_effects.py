"""Tests of the report's figures on the effects of settings."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.aggregate import assemble
from harness.core.answers import Answer
from harness.core.scores import Score
from harness.core.settings import Settings, Variant
from harness.core.suite import Case, Role
from harness.report import pairwise, setting_effects
from harness.report.pass_rates import scores_by_role
from tests.support.report_runs import sample_run
from tests.support.synthetic_runs import case, manifest, record, score, suite


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


def unscored(case: Case, answer: Answer) -> Score:
    """Score an answer as the synthetic runs do, but give no score to the answer "unclear"."""
    return Score(case.id, False, None, error="unclear") if answer.text == "unclear" else score(case, answer)


def test_pairs_are_compared_on_cases_that_all_of_them_have() -> None:
    """If answers of some variants have no score, a setting's effect is measured on the cases that have all scores."""
    asked = [case(f"c{n}", Role.GENERALISE) for n in range(5)]
    grid = [(rate, rank) for rate in (1e-3, 1e-2) for rank in (4, 8)]
    rows = [Variant(f"v{n}", f"{rate} {rank}", Settings(rate, rank=rank)) for n, (rate, rank) in enumerate(grid)]
    passing = (("unclear", 0), ("unclear", 2), ("good", 2), ("good", 4))  # the answer to c0; how many others pass
    answers = [
        {"c0": first, **{f"c{n}": "good" if n <= count else "bad" for n in range(1, 5)}} for first, count in passing
    ]
    records = [record(None, dict.fromkeys((each.id for each in asked), "bad"))]
    records += [record(row, given) for row, given in zip(rows, answers, strict=True)]
    run = assemble(manifest(suite(asked), rows), records, unscored, "2026-01-02T03:24:05+00:00")
    found = setting_effects.effects(run, scores_by_role(run, run.samples))
    assert {each.setting: each.levels[1].matched.split(" ")[0] for each in found} == {
        "Learning rate": "+50",
        "Rank": "+50",
    }
    assert all(each.levels[1].matched.endswith(", 2 pairs") for each in found)


def test_variants_without_settings_have_no_effects() -> None:
    """If there are no variants, there are no effects; if there is a single one, there is no table of pairs."""
    whole = sample_run()
    assert setting_effects.effects(replace(whole, variants=()), {}) == ()
    assert pairwise.pairwise(replace(whole, variants=whole.variants[:1]), {}) is None
