"""Tests of the gate's verdict on a comparison, its reasons, and the tolerances for costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.regression import verdict
from harness.analysis.regression.run_comparison import compare
from harness.core.measurement import Basis, Measurement
from harness.core.regression import CostChange, Policy
from harness.core.run_results import Verdict
from harness.core.suite import Case, Role
from harness.core.training_outcome import Status
from harness.core.units import Unit
from tests.support import run_pairs, synthetic_runs
from tests.support.run_pairs import CASES, LEARN, POLICY, SEEDS, decided


def critical(cases: tuple[Case, ...] = CASES) -> tuple[Case, ...]:
    return (replace(cases[0], critical=True), *cases[1:])


def test_the_same_is_unchanged() -> None:
    """If two runs have equal results, the verdict is UNCHANGED.

    The reasons give the upper bound of the loss and the loss that would have been detected.
    """
    found = decided(run_pairs.run(seeds=(5, 6, 7, 8, 9)))
    assert found.verdict is Verdict.UNCHANGED
    assert "less than" in found.variants[0].reasons[0].text
    assert "would have been detected" in found.variants[0].reasons[0].text


def test_a_loss_is_a_regression() -> None:
    """If three of ten `learn` cases are lost under every seed, the verdict is REGRESSED, because of `learn` only."""
    found = decided(run_pairs.run(dict.fromkeys(LEARN[:3], SEEDS)))
    worse = [reason.text for reason in found.variants[0].reasons if reason.verdict is Verdict.REGRESSED]
    assert found.verdict is Verdict.REGRESSED
    assert [text.split()[0] for text in worse] == ["learn"]
    assert "100.0%, now 70.0%: 30.0 points lost (p" in worse[0]


def test_a_gain_is_an_improvement() -> None:
    """If three of ten `learn` cases are gained under every seed, the verdict is IMPROVED."""
    assert decided(run_pairs.run(), run_pairs.run(dict.fromkeys(LEARN[:3], SEEDS))).verdict is Verdict.IMPROVED


def test_a_sure_loss_below_the_least_effect_is_none() -> None:
    """If a loss is significant but smaller than the policy's `least`, it is not a regression."""
    wide = tuple(synthetic_runs.case(f"learn {n}", Role.LEARN) for n in range(60))
    before, after = (run_pairs.run(failing, cases=wide) for failing in ({}, {"learn 1": SEEDS, "learn 2": SEEDS}))
    assert compare(before, after).variants[0].roles[0].worse_adjusted < 0.05
    assert decided(after, before).verdict is Verdict.UNCHANGED
    assert decided(after, before, Policy(10, least=1)).verdict is Verdict.REGRESSED


def test_what_cannot_be_told_is_inconclusive() -> None:
    """If a loss above the margin is neither shown nor excluded, the verdict is INCONCLUSIVE.

    The reason says that more seeds or cases are needed.
    """
    found = decided(run_pairs.run({id: [0] for id in LEARN[:6]}, seeds=(0, 1)), run_pairs.run(seeds=(0, 1)))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "more seeds or cases are needed to decide" in found.variants[0].reasons[0].text


def test_a_critical_case_speaks_for_itself() -> None:
    """A critical case is a regression if it fails under every seed, but not if it passes under one seed."""
    everywhere, nearly = {"learn 0": SEEDS}, {"learn 0": SEEDS[1:]}
    before = run_pairs.run(cases=critical())
    found = decided(run_pairs.run(everywhere, cases=critical()), before, Policy(50, least=50))
    assert (found.verdict, found.variants[0].reasons[0].text) == (
        Verdict.REGRESSED, "critical case learn 0 passed before and fails under all 5 seeds",
    )  # fmt: skip
    assert decided(run_pairs.run(nearly, cases=critical()), before, Policy(50, least=50)).verdict is Verdict.UNCHANGED
    assert decided(run_pairs.run(everywhere), policy=Policy(50, least=50)).verdict is Verdict.UNCHANGED


def test_a_mark_removed_is_still_critical() -> None:
    """If a case is critical in the baseline's suite, it stays critical, even if the later suite removes the mark."""
    found = decided(run_pairs.run({"learn 0": SEEDS}), run_pairs.run(cases=critical()), Policy(50, least=50))
    assert found.verdict is Verdict.REGRESSED


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (Status.DIVERGED, Verdict.REGRESSED),
        (Status.OUT_OF_MEMORY, Verdict.REGRESSED),
        (Status.FAILED, Verdict.INCONCLUSIVE),
        (Status.TIMED_OUT, Verdict.INCONCLUSIVE),
        (Status.CANCELLED, Verdict.INCONCLUSIVE),
    ],
)
def test_trials_that_did_not_succeed(status: Status, verdict: Verdict) -> None:
    """If trials diverge or run out of memory, the verdict is REGRESSED; if they have no result, it is INCONCLUSIVE."""
    assert decided(run_pairs.run(status=status)).verdict is verdict


def test_one_bad_seed_is_no_regression() -> None:
    """If one of five trainings fails every `learn` case, the verdict is not REGRESSED."""
    assert decided(run_pairs.run({id: [3] for id in LEARN})).verdict is not Verdict.REGRESSED


def test_not_comparable_says_why() -> None:
    """If the base models differ, the verdict is NOT_COMPARABLE, the reason names both, and no variant is judged."""
    other = run_pairs.run()
    found = decided(replace(other, model=replace(other.model, name="llama", digest="d" * 16)))
    assert (found.verdict, found.reasons, found.variants) == (
        Verdict.NOT_COMPARABLE, ("model: pocket -> llama",), (),
    )  # fmt: skip


def test_no_common_case_is_not_comparable() -> None:
    """If the suites of two runs have no common case, the verdict is NOT_COMPARABLE."""
    strange = tuple(synthetic_runs.case(f"strange {n}", Role.LEARN) for n in range(3))
    assert decided(run_pairs.run(cases=strange)).verdict is Verdict.NOT_COMPARABLE


def test_the_gravest_counts() -> None:
    """The order of severity of verdicts is NOT_COMPARABLE, REGRESSED, INCONCLUSIVE, IMPROVED, UNCHANGED."""
    order = (Verdict.NOT_COMPARABLE, Verdict.REGRESSED, Verdict.INCONCLUSIVE, Verdict.IMPROVED, Verdict.UNCHANGED)
    for number in range(len(order)):
        assert verdict.most_severe(order[number:][::-1]) is order[number]


# --- missing results ---------------------------------------------------------------------------------------------


def test_nothing_to_compare_is_not_unchanged() -> None:
    """If a variant has no result in the earlier run, the verdict is INCONCLUSIVE; the reason gives its trials' ends."""
    before = run_pairs.run()
    row = before.variants[0]
    never = replace(row, statuses=(Status.CANCELLED,) * 5, messages=("stopped",) * 5, answers={}, costs=())
    found = compare(replace(before, variants=(never,)), run_pairs.run()).variants[0]
    judged = verdict.judge(found, POLICY)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "no result could be compared: before, seed 0: cancelled: stopped" in judged.reasons[0].text


def test_a_score_that_is_gone_is_not_unchanged() -> None:
    """If cases that had a score before have none now, the verdict is INCONCLUSIVE, as a regression may be the cause."""
    after = run_pairs.run()
    row = after.variants[0]
    left = {case: answers for case, answers in row.answers.items() if case not in LEARN[:2]}
    judged = verdict.judge(
        compare(run_pairs.run(), replace(after, variants=(replace(row, answers=left),))).variants[0], POLICY
    )
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert any("2 cases that had a score before" in reason.text for reason in judged.reasons)


def test_the_trial_that_has_no_result_is_the_one_that_is_told() -> None:
    """If one trial failed and another diverged, the reason names only the failed trial, which has no result."""
    after = run_pairs.run()
    ends = (Status.DIVERGED, *(Status.SUCCEEDED,) * 3, Status.FAILED)
    row = replace(after.variants[0], statuses=ends, messages=("loss nan", "", "", "", "boom"))
    judged = verdict.judge(compare(run_pairs.run(), replace(after, variants=(row,))).variants[0], POLICY)
    assert any("1 of 5 trials have no result: seed 4: failed: boom" in reason.text for reason in judged.reasons)


def test_a_training_that_broke_off_saves_nothing() -> None:
    """If a training diverged, its costs are left out of the comparison."""
    before = run_pairs.run()
    row = before.variants[0]
    broken = replace(row, statuses=(Status.DIVERGED, *row.statuses[1:]))
    found = compare(replace(before, variants=(broken,)), before).variants[0]
    assert [(len(cost.before), len(cost.after)) for cost in found.costs] == [(4, 5), (4, 5)]


# --- costs -------------------------------------------------------------------------------------------------------


def measured(*values: float, unit: Unit = Unit.SECONDS) -> tuple[Measurement, ...]:
    return tuple(Measurement(value, unit, Basis.MEASURED, "Tesla T4") for value in values)


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ((100, 100, 100, 100, 100), (109,) * 5, False),
        ((100, 100, 100, 100, 100), (111,) * 5, True),
        ((80, 120, 100, 90, 110), (130,) * 5, False),
        ((80, 120, 100, 90, 110), (200,) * 5, True),
        ((100, 100, 100, 100, 100), (50,) * 5, False),
    ],
)
def test_costs_rise_beyond_the_repeats(before: tuple[float, ...], after: tuple[float, ...], worse: bool) -> None:
    """If training time rose by more than 10%, and by more than it varied in the baseline, the verdict is REGRESSED."""
    base = compare(run_pairs.run(), run_pairs.run()).variants[0]
    cost = CostChange("training time", measured(*before), measured(*after))
    judgement = verdict.judge(replace(base, costs=(cost,)), POLICY)
    assert (judgement.verdict is Verdict.REGRESSED) is worse


def test_costs_that_are_not_compared_decide_nothing() -> None:
    """Costs of different devices, CPU times, and costs of fewer than three trainings do not influence the verdict."""
    base = compare(run_pairs.run(), run_pairs.run()).variants[0]
    dear = CostChange("training time", measured(1, 1, 1), measured(9, 9, 9), "another device")
    few = CostChange("training time", measured(1, 1), measured(9, 9))
    assert verdict.judge(replace(base, costs=(dear, few)), POLICY).verdict is Verdict.UNCHANGED
    assert [cost.hindrance for cost in base.costs] == ["CPU time depends on other processes", ""]


def test_chance_alone_raises_no_cost() -> None:
    """If costs vary only by chance, by 5% or 30%, the verdict is REGRESSED in at most 0.5% of 2,000 simulated pairs."""
    import numpy as np

    rng = np.random.default_rng(0)
    base = compare(run_pairs.run(), run_pairs.run()).variants[0]
    alarms = 0
    for number in range(2_000):
        sides = rng.lognormal(0, (0.05, 0.3)[number % 2], size=(2, 5))
        cost = CostChange("training time", measured(*sides[0]), measured(*sides[1]))
        alarms += verdict.judge(replace(base, roles=(), costs=(cost,)), POLICY).verdict is Verdict.REGRESSED
    assert alarms / 2_000 <= 0.005
