"""Tests of the comparison of two runs on their common cases, with a list of all other differences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.aggregate import assemble
from harness.analysis.regression import gate_output, verdict
from harness.analysis.regression.baseline import baseline_of
from harness.analysis.regression.run_comparison import compare
from harness.core.answers import Likelihood
from harness.core.engines import Engine
from harness.core.machine import Machine
from harness.core.model import ModelRef
from harness.core.regression import Baseline
from harness.core.scores import Rate
from harness.core.settings import Settings, Variant
from harness.core.suite import Decoding, Message, Reducer, Role
from harness.core.training_outcome import Status
from tests.support import synthetic_runs
from tests.support.run_pairs import CASES, NAMED, POLICY, PRINT, SEEDS, results, run
from tests.support.synthetic_runs import score

LEARN = [case.id for case in CASES if case.role is Role.LEARN]


def test_a_run_and_itself() -> None:
    """If a run is compared with itself, no difference is listed, and every p-value is 1."""
    one = run({"learn 1": [2]})
    found = compare(one, one)
    (variant,) = found.variants
    assert (found.obstacles, found.changed, found.missing, found.added) == ((), (), (), ())
    assert found.suite.empty
    assert (variant.settings, variant.drift, variant.flips) == ((), (), ())
    assert [role.role for role in variant.roles] == [Role.LEARN, Role.RETAIN]
    assert {(role.p_worse, role.p_better) for role in variant.roles} == {(1.0, 1.0)}
    assert variant.roles[0].before.value == variant.roles[0].after.value == 49 / 50


def test_a_named_row_keeps_its_name() -> None:
    """If the grid names a variant, both runs' variants of that name are compared, and changed settings are listed."""
    hotter = replace(NAMED, settings=replace(NAMED.settings, learning_rate=1e-2, epochs=1))
    (variant,) = compare(run(), run(variant=hotter)).variants
    assert [(d.what, d.before, d.after) for d in variant.settings] == [
        ("learning_rate", "0.001", "0.01"), ("epochs", "3", "1"),
    ]  # fmt: skip


def test_rows_without_names_are_paired_by_settings() -> None:
    """If the grid does not name a variant, it is compared with the other run's variant of equal settings."""
    called = Variant("a", "lr=1e-3", Settings(1e-3)), Variant("a", "lr=1e-3 r=16", Settings(1e-3))
    assert compare(run(variant=called[0]), run(variant=called[1])).variants[0].name == "lr=1e-3 r=16"
    other = compare(run(variant=called[0]), run(variant=replace(called[1], settings=Settings(2e-3))))
    assert (other.variants, other.missing, other.added) == ((), ("lr=1e-3",), ("lr=1e-3 r=16",))


def with_decoding(one: Baseline, decoding: Decoding) -> Baseline:
    return replace(one, suite=replace(one.suite, decoding=decoding))


def on(one: Baseline, machine: Machine) -> Baseline:
    return replace(one, provenance=replace(one.provenance, machine=machine))


@pytest.mark.parametrize(
    ("other", "what", "after"),
    [
        (replace(run(), model=ModelRef("llama", "", "d" * 16)), "model", "llama"),
        (replace(run(), training_rows=(*run().training_rows, "beef")), "training rows", "2, only here: row 2"),
        (with_decoding(run(), Decoding(32)), "decoding max_new_tokens", "32"),
        (with_decoding(run(), Decoding(temperature=0.7)), "decoding temperature", "0.7"),
        (with_decoding(run(), Decoding(stop=("\n",))), "decoding stop", r"'\n'"),
        (replace(run(), suite=replace(run().suite, reducer=Reducer.ALL)), "reducer", "all"),
        (on(run(), replace(run().provenance.machine, compute_dtype="float16")), "compute dtype", "float16"),
    ],
)  # fmt: skip
def test_obstacles(other: Baseline, what: str, after: str) -> None:
    """If model, training rows, decoding, reducer or compute dtype differ, the runs cannot be compared.

    The comparison names the difference.
    """
    (obstacle,) = compare(run(), other).obstacles
    assert (obstacle.what, obstacle.after) == (what, after)


def test_what_changed_is_named() -> None:
    """If library versions, machine or engine differ, both values are listed, and only costs are not compared."""
    versions = run().provenance.versions | {"trl": "9.9"}
    other = on(run(), replace(run().provenance.machine, device="Other CPU"))
    other = replace(other, engine=Engine.FUSED, provenance=replace(other.provenance, versions=versions))
    found = compare(run(), other)
    assert {d.what: d.after for d in found.changed} == {"trl": "9.9", "device": "Other CPU", "engine": "fused"}
    assert not found.obstacles
    assert all("engine" in cost.hindrance for cost in found.variants[0].costs)


def test_another_device_hinders_costs_only() -> None:
    """If the runs are from different devices, pass rates are compared, and costs are shown but not compared."""
    gpu, other = synthetic_runs.machine("cuda"), replace(synthetic_runs.machine("cuda"), device="NVIDIA A100")
    sides = [
        run(run=synthetic_runs.manifest(synthetic_runs.suite(CASES), [NAMED], SEEDS, on=where))
        for where in (gpu, other)
    ]
    found = compare(*sides)
    told = "measured on Tesla T4, then measured on NVIDIA A100"
    assert [cost.hindrance for cost in found.variants[0].costs] == [told, told]
    assert not found.obstacles
    assert len(found.variants[0].roles) == 2
    assert {cost.hindrance for cost in compare(sides[0], sides[0]).variants[0].costs} == {""}


def test_drift_is_named() -> None:
    """If the trainings of a variant have different fingerprints, the differing fields are listed as drift.

    If one side has no fingerprint, there is no drift.
    """
    drifted = replace(PRINT, saved_dtype="BF16", supervised_tokens=900)
    (variant,) = compare(run(), run(fingerprint=drifted)).variants
    assert [(d.what, d.before, d.after) for d in variant.drift] == [
        ("supervised tokens", "300", "900"), ("saved dtype", "F32", "BF16"),
    ]  # fmt: skip
    assert compare(run(fingerprint=None), run()).variants[0].drift == ()


# --- changed suites ----------------------------------------------------------------------------------------------


def test_another_prompt_is_left_out() -> None:
    """If a case's prompt changed, or only one suite has the case, it is left out of the comparison and listed."""
    asked = replace(CASES[0], messages=(Message("user", "In other words?"),))
    new = synthetic_runs.case("brand new", Role.LEARN)
    found = compare(run(), run(cases=(asked, *CASES[2:], new)), synthetic_runs.score)
    assert found.suite.asked_otherwise == ("learn 0",)
    assert (found.suite.gone, found.suite.new) == (("learn 1",), ("brand new",))
    assert found.variants[0].roles[0].cases == 8


def test_another_system_prompt_is_another_prompt() -> None:
    """If the suite's system prompt changed, every case without its own system prompt has a changed prompt."""
    other = replace(run(), suite=replace(run().suite, system_prompt="Be brief."))
    assert len(compare(run(), other).suite.asked_otherwise) == len(CASES)


def test_changed_assertions_judge_again() -> None:
    """If a case's assertions changed, the stored answers are scored with the later assertions.

    If no scorer is given, the case is left out.
    """
    strict = (replace(CASES[0], assertions=synthetic_runs.case("x", expect="splendid").assertions), *CASES[1:])
    found = compare(run(), run({"learn 0": SEEDS}, cases=strict), synthetic_runs.score)
    assert found.suite.judged_otherwise == ("learn 0",)
    assert found.variants[0].flips == ()
    assert found.variants[0].roles[0].before.value == 0.9
    assert compare(run(), run(cases=strict)).suite.unjudged == ("learn 0",)


def test_what_was_not_kept_cannot_be_judged() -> None:
    """If a new assertion needs log-probabilities that the baseline did not store, its case is left out."""
    weighing = replace(CASES[0].assertions[0], type="perplexity", threshold=2.0)
    with_weight = (replace(CASES[0], assertions=(weighing,)), *CASES[1:])
    assert compare(run(), run(cases=with_weight), synthetic_runs.score).suite.unjudged == ("learn 0",)


def test_log_probabilities_are_kept_where_they_judge() -> None:
    """A baseline stores an answer's log-probabilities only if an assertion of the case needs them."""
    weighing = replace(CASES[0].assertions[0], type="reference-perplexity")
    made = results(cases=(replace(CASES[0], assertions=(weighing,)), *CASES[1:]))
    likely = Likelihood(-1.0, 2)
    found = baseline_of(
        replace(made, samples=tuple(replace(s, answer=replace(s.answer, reference=likely)) for s in made.samples)),
        "run",
    )
    assert [kept.reference for kept in found.variants[0].answers["learn 0"]] == [likely]
    assert [kept.reference for kept in found.variants[0].answers["learn 1"]] == [None]


# --- answers -----------------------------------------------------------------------------------------------------


def test_flips() -> None:
    """Cases whose number of passing seeds changed are listed with both answers, the largest losses first."""
    found = compare(run({"keep 3": [0]}), run({"learn 1": SEEDS, "learn 2": [4]})).variants[0].flips
    assert [(flip.case, flip.lost, flip.everywhere) for flip in found] == [
        ("learn 1", True, True), ("learn 2", True, False), ("keep 3", False, False),
    ]  # fmt: skip
    assert (found[0].before, found[0].after) == (Rate(5, 5), Rate(0, 5))
    assert (found[1].answer_before, found[1].answer_after) == ("good", "bad")
    assert "does not contain" in found[0].reason


def test_a_broken_training_passes_nothing() -> None:
    """If a seed diverged, it counts as failing every case; if it failed for another reason, it is left out."""
    broke = compare(run(), run(status=Status.DIVERGED)).variants[0]
    assert [role.after.value for role in broke.roles] == [0.0, 0.0]
    assert max(role.worse_adjusted for role in broke.roles) < 0.01
    missing = compare(run(), run(status=Status.FAILED)).variants[0]
    assert (missing.roles, len(missing.missing)) == ((), 5)
    assert missing.failures_after[0].startswith("seed 0: failed")


@pytest.mark.parametrize("dumb", ["before", "after"])
def test_every_case_counts_whatever_the_base_answers(dumb: str) -> None:
    """A case counts in a comparison of two runs even if the base model fails it in one of them."""
    sound, lost = run(), run({"keep 1": SEEDS})
    before, after = (_with_failing_base(sound), lost) if dumb == "before" else (sound, _with_failing_base(lost))
    found = compare(before, after)
    kept = next(role for role in found.variants[0].roles if role.role is Role.RETAIN)
    assert kept.cases == sum(case.role is Role.RETAIN for case in sound.suite.cases)
    assert [flip.case for flip in found.variants[0].flips] == ["keep 1"]
    assert [flip.case for flip in found.base] == ["keep 1"]


def _with_failing_base(made: Baseline) -> Baseline:
    failed = tuple(replace(answer, passed=False) for answer in made.base.answers["keep 1"])
    return replace(made, base=replace(made.base, answers=made.base.answers | {"keep 1": failed}))


def test_p_values_hold_the_family() -> None:
    """The p-values of all roles are adjusted together by Holm's method, so none becomes smaller."""
    found = compare(run(), run({id: [0, 1, 2] for id in LEARN})).variants[0].roles
    assert all(role.worse_adjusted >= role.p_worse for role in found)
    assert found[0].worse_adjusted == pytest.approx(2 * found[0].p_worse)
    assert found[1].worse_adjusted == 1.0


def test_seeds_need_not_be_the_same() -> None:
    """Runs can be compared even if their seeds and the numbers of their seeds differ."""
    found = compare(run(), run(seeds=(7, 8, 9))).variants[0]
    assert found.seeds_after == (7, 8, 9)
    assert [role.after.value for role in found.roles] == [1.0, 1.0]


def test_a_lost_case_shows_an_answer_that_fails() -> None:
    """With the reducer `all`, a case of which one repeat now fails is shown with this repeat's answer."""
    asked = replace(synthetic_runs.suite(CASES[:1]), repeats=2, reducer=Reducer.ALL)
    manifest = synthetic_runs.manifest(asked, [NAMED], (0,))
    base = synthetic_runs.record(None, {"learn 0": ("bad", "bad")})
    texts = (("good", "good"), ("good", "bad"))
    both = [
        baseline_of(assemble(manifest, [base, synthetic_runs.record(NAMED, {"learn 0": given})], score, ""), "run")
        for given in texts
    ]
    (flip,) = compare(*both).variants[0].flips
    assert (flip.answer_before, flip.answer_after) == ("good", "bad")
    assert "does not contain" in flip.reason


def test_missing_costs_are_told() -> None:
    """If the trainings of one run have no costs that can be compared, the costs are listed with the reason."""
    whole = run()
    bare = replace(whole, variants=(replace(whole.variants[0], costs=()),))
    for pair, missing in (((bare, whole), "the earlier run"), ((whole, bare), "the later run")):
        decision = verdict.decide(compare(*pair), POLICY)
        told = [words.split(": ", 1)[1] for words in decision.variants[0].unjudged]
        assert told == [f"not compared: {missing} has no finished training with known costs"] * 2
        assert "unknown" in gate_output.markdown(decision)
    assert compare(bare, bare).variants[0].costs == ()
