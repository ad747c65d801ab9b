"""Tests of how a run's records and stored answers become the outcomes of its variants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness import report
from harness.analysis.aggregate import assemble
from harness.core.answers import Answer
from harness.core.measurement import Phase
from harness.core.run import TrialRecord
from harness.core.run_results import LossVerdict, Results
from harness.core.scores import Rate, Score
from harness.core.suite import Case, Example, LeakLabel, Message, Role, Split
from harness.core.training_outcome import Status
from harness.report import terminal
from tests.support.made_results import cost
from tests.support.synthetic_runs import case, manifest, record, results, score, suite, training, variants

CASES = (
    case("learn", Role.LEARN),
    case("words", Role.GENERALISE),
    case("keep", Role.RETAIN),
    case("shun", Role.AVOID),
    case("late", Role.GENERALISE, Split.CONFIRM),
    case("late keep", Role.RETAIN, Split.CONFIRM),
)
BASE = {"learn": "bad", "words": "bad", "keep": "good", "shun": "good"}
LATE = {"late": "bad", "late keep": "good"}
ALL_GOOD = dict.fromkeys(BASE, "good")
ONE, TWO = variants(2)


def run(*records: TrialRecord, seeds: tuple[int, ...] = (0,), base: dict[str, str] | None = None) -> Results:
    before = record(None, BASE if base is None else base)
    return assemble(manifest(suite(CASES, margin=100), [ONE, TWO], seeds), [before, *records], score, "now")


def test_an_answer_that_cannot_be_scored_is_lost() -> None:
    """If an answer to a `retain` or `avoid` case cannot be scored, the case counts as lost."""

    def strict(one: Case, answer: Answer) -> Score:
        return Score("check", False, None, error="no JSON") if answer.text == "broken" else score(one, answer.text)

    records = [record(None, BASE), record(ONE, ALL_GOOD | {"keep": "broken"}), record(TWO, ALL_GOOD)]
    found = assemble(manifest(suite(CASES), [ONE, TWO]), records, strict, "now")
    losses = [variant.loss.points if variant.loss else None for variant in found.variants]
    assert losses == [50.0, 0.0]


def test_every_case_counts() -> None:
    """A case counts in pass rates, losses and changes whether the base model passes it or not."""
    found = run(record(ONE, ALL_GOOD), base=BASE | {"keep": "bad", "learn": "good"})
    assert found.base.rates[Role.RETAIN] == Rate(0, 1)
    assert found.variants[0].rates[Role.RETAIN] == found.variants[0].rates[Role.LEARN] == Rate(1, 1)
    assert found.variants[0].fixed == 2
    assert found.variants[0].changes[Role.LEARN].points == 0
    loss = found.variants[0].loss
    assert loss is not None
    assert (loss.cases, loss.base_passed, loss.fixed, loss.points) == (2, 1, 1, -100)


def test_a_case_that_the_base_cannot_be_scored_on_is_in_no_loss() -> None:
    """If the base model's answer to a case has no score, no variant is compared with it on this case."""

    def strict(one: Case, answer: Answer) -> Score:
        odd = (one.id, answer.text) == ("keep", "odd")
        return Score(one.id, False, None, error="the pattern took too long") if odd else score(one, answer)

    records = [record(None, BASE | {"keep": "odd"}), record(ONE, ALL_GOOD | {"keep": "bad"})]
    found = assemble(manifest(suite(CASES), [ONE]), records, strict, "now").variants[0]
    assert found.loss is not None
    assert (found.loss.cases, found.loss.broken) == (1, 0)
    assert found.losses[Role.RETAIN].cases == 0
    assert found.losses[Role.RETAIN].verdict is LossVerdict.CANNOT_TELL
    assert Role.RETAIN not in found.changes


def test_rates_pool_the_seeds() -> None:
    """A case that was answered under two seeds counts twice in pass rates and in the numbers of changed cases."""
    found = run(
        record(ONE, ALL_GOOD), record(ONE, ALL_GOOD | {"words": "bad", "keep": "bad"}, seed=1), seeds=(0, 1)
    ).variants[0]
    assert found.rates == {
        Role.LEARN: Rate(2, 2),
        Role.GENERALISE: Rate(1, 2),
        Role.RETAIN: Rate(1, 2),
        Role.AVOID: Rate(2, 2),
    }
    assert (found.fixed, found.broken) == (3, 1)


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.SUCCEEDED])
def test_only_success_has_answers(status: Status) -> None:
    """If a trial did not succeed, its answers are neither listed nor counted."""
    found = run(record(ONE, ALL_GOOD, status=status, message="why"))
    assert found.variants[0].rates == {}
    assert found.variants[0].messages == ("why",)
    assert not [s for s in found.samples if s.variant == ONE.name]


def test_missing_trials_are_rows() -> None:
    """If a variant of the plan has no record, its outcome has the status cancelled and the message "not run"."""
    found = run(record(ONE, ALL_GOOD))
    assert [v.name for v in found.variants] == [ONE.name, TWO.name]
    assert found.variants[1].statuses == (Status.CANCELLED,)
    assert "not run" in found.variants[1].messages[0]


def test_a_seed_that_failed_leaves_the_others() -> None:
    """If one of two seeds diverged, pass rates count only the other, and both statuses are listed in seed order."""
    found = run(record(ONE, {}, seed=1, status=Status.DIVERGED), record(ONE, ALL_GOOD), seeds=(0, 1)).variants[0]
    assert found.statuses == (Status.SUCCEEDED, Status.DIVERGED)
    assert found.rates[Role.LEARN] == Rate(1, 1)


def test_answer_without_score_is_not_a_failure() -> None:
    """If an answer cannot be scored, it counts in no pass rate, not even as failed."""

    def odd(one: Case, given: Answer) -> Score:
        missing = (one.id, given.text) == ("words", "good")
        return Score(one.id, False, None, error="no") if missing else score(one, given)

    records = [record(None, BASE), record(ONE, ALL_GOOD)]
    found = assemble(manifest(suite(CASES), [ONE]), records, odd, "now")
    assert found.variants[0].rates[Role.GENERALISE] == Rate(0, 0)


def test_loss_pools_retain_and_avoid() -> None:
    """The loss and its bounds are computed from the `retain` and `avoid` cases together, over all seeds."""
    kept = tuple(case(f"keep {n}", Role.RETAIN if n % 2 else Role.AVOID) for n in range(20))
    before = record(None, {c.id: "good" for c in kept})
    after = [
        record(ONE, {c.id: "bad" if n < seed else "good" for n, c in enumerate(kept)}, seed=seed) for seed in (1, 2, 3)
    ]
    found = assemble(manifest(suite(kept), [ONE], (1, 2, 3)), [before, *after], score, "now").variants[0]
    assert found.loss is not None
    assert (found.loss.points, found.loss.cases, found.loss.broken) == (pytest.approx(100 * 2 / 20), 20, 2)
    assert found.loss.lower is not None
    assert found.loss.upper is not None
    assert found.loss.lower < found.loss.points < found.loss.upper < 40
    assert {role: loss.cases for role, loss in found.losses.items()} == {Role.RETAIN: 10, Role.AVOID: 10}


def test_cases_of_a_group_are_one() -> None:
    """The cases of a group count as one case, so the upper bound of the loss is larger than for independent cases."""
    kept = tuple(replace(case(f"keep {n}", Role.RETAIN), group=f"g{n % 4}") for n in range(40))
    records = [record(who, {c.id: "good" for c in kept}) for who in (None, ONE)]
    grouped, alone = (
        assemble(manifest(suite(cases), [ONE]), records, score, "now").variants[0].loss
        for cases in (kept, tuple(replace(c, group="") for c in kept))
    )
    assert grouped is not None
    assert alone is not None
    assert (grouped.clusters, grouped.grouped, alone.clusters, alone.grouped) == (4, True, 40, False)
    assert (alone.upper or 0) < 10 < 20 < (grouped.upper or 0)
    assert (grouped.verdict, alone.verdict) == (LossVerdict.CANNOT_TELL, LossVerdict.KEEPS)


def test_costs_are_mean_seconds_and_largest_peaks() -> None:
    """A variant's costs are the mean seconds and the largest peak memory of its successful seeds."""
    costs = [cost(Phase.TRAIN, 4.0, peak=100), cost(Phase.TRAIN, 6.0, peak=300), cost(Phase.TRAIN, 99.0, peak=900)]
    trials = [
        record(ONE, ALL_GOOD if n < 2 else {}, seed=n, status=Status.SUCCEEDED if n < 2 else Status.DIVERGED,
               trained=replace(training(), cost=each))
        for n, each in enumerate(costs)
    ]  # fmt: skip
    train = next(c for c in run(*trials, seeds=(0, 1, 2)).variants[0].costs if c.phase is Phase.TRAIN)
    assert (train.seconds.value, train.peak_resident.value) == (5.0, 300)


def test_figures_of_another_device_are_not_averaged() -> None:
    """If a seed was trained on a different device from the first seed, its training time is left out of the mean."""
    here, there = cost(Phase.TRAIN, 4.0), cost(Phase.TRAIN, 400.0)
    there = replace(there, seconds=replace(there.seconds, device="another CPU"))
    trials = [record(ONE, ALL_GOOD, seed=n, trained=replace(training(), cost=c)) for n, c in enumerate((here, there))]
    train = next(c for c in run(*trials, seeds=(0, 1)).variants[0].costs if c.phase is Phase.TRAIN)
    assert train.seconds.value == 4.0


def test_confirmation() -> None:
    """The results of the confirmation cases are separate outcomes, of the chosen variant and of the base model."""
    late = record(None, LATE, split=Split.CONFIRM)
    again = record(ONE, dict.fromkeys(LATE, "good"), seed=100, split=Split.CONFIRM)
    found = run(record(ONE, ALL_GOOD), late, again)
    assert found.confirmed
    assert found.confirmed.rates == {Role.GENERALISE: Rate(1, 1), Role.RETAIN: Rate(1, 1)}
    assert found.confirmed.seeds == (100, 101)
    assert found.confirmed.statuses == (Status.SUCCEEDED, Status.CANCELLED)
    assert found.confirmed_base
    assert found.confirmed_base.rates[Role.GENERALISE] == Rate(0, 1)
    assert found.variants[0].rates[Role.GENERALISE] == Rate(1, 1)


def test_confirmation_of_another_variant_is_ignored() -> None:
    """If the chosen variant has changed since the confirmation, the confirmation of the earlier choice is ignored."""
    stale = record(TWO, dict.fromkeys(LATE, "good"), seed=100, split=Split.CONFIRM)
    found = run(record(ONE, ALL_GOOD), record(TWO, BASE), stale)
    assert found.choice.variant == ONE.name
    assert found.confirmed is None


def test_no_base_no_claims() -> None:
    """If there are no answers of the base model, there are no losses, and no variant is chosen."""
    found = assemble(manifest(suite(CASES), [ONE]), [record(ONE, ALL_GOOD)], score, "now")
    assert found.choice.variant is None
    assert found.variants[0].loss is None


def test_differing_settings() -> None:
    """An outcome lists only the settings in which the run's variants differ."""
    assert set(results(8).variants[0].differs) == {"learning_rate", "rank", "alpha"}
    assert run(record(ONE, ALL_GOOD)).variants[0].differs == {"learning_rate": 1e-4}


def test_random_weights_are_never_chosen() -> None:
    """If the model's weights are random, no answer has a score, no variant is chosen, and the reasons say why.

    Statuses and costs are reported as for any model.
    """
    made = manifest(suite(CASES, margin=100), [ONE, TWO])
    good = [record(None, BASE), record(ONE, ALL_GOOD, trained=training())]
    assert assemble(made, good, score, "now").choice.variant == ONE.name
    found = assemble(replace(made, model=replace(made.model, shape_only=True)), good, score, "now")
    assert (found.choice.variant, found.choice.eligible) == (None, ())
    assert "weights are random" in found.choice.reasons[0]
    assert found.variants[0].costs
    assert {sample.score.value for sample in found.samples} == {None}
    assert found.variants[0].loss is None
    assert {rate.total for row in (found.base, *found.variants) for rate in row.rates.values()} == {0}


def test_rates_are_told_apart_by_label() -> None:
    """If the cases of a role have different contamination labels, the reports show a pass rate for each label."""
    asked = [case("said", Role.GENERALISE, prompt="Who are you?"), case("new", Role.GENERALISE, prompt="Your trade?"),
             case("kept", Role.RETAIN, prompt="Two plus two?")]  # fmt: skip
    rows = (Example((Message("user", "who are you"), Message("assistant", "Dottie."))),)
    records = [record(None, {"said": "bad", "new": "bad", "kept": "good"}),
               record(ONE, {"said": "good", "new": "bad", "kept": "good"})]  # fmt: skip
    found = assemble(manifest(replace(suite(asked, margin=100), examples=rows), [ONE]), records, score, "now")
    labels = {LeakLabel.SEEN: Rate(1, 1), LeakLabel.UNSEEN: Rate(0, 1)}
    assert found.variants[0].by_label == {Role.GENERALISE: labels}
    assert "100% (1/1)" in next(
        line for line in terminal.summary(found).splitlines() if line.strip().startswith("seen")
    )
    page = report.render(found, now="now")
    assert "generalise, seen" in page
    assert "generalise, unseen" in page


def test_graded_scores_move_before_answers_flip() -> None:
    """If scores are graded, a change has the mean difference of the scores with its interval; otherwise it has none."""
    kept = tuple(case(f"keep {n}", Role.RETAIN) for n in range(20))
    records = [record(None, {c.id: "good" for c in kept}), record(ONE, {c.id: f"good {len(c.id)}" for c in kept})]

    def graded(one: Case, given: Answer) -> Score:
        return replace(score(one, given), value={"good": 1.0, "good 6": 0.7, "good 7": 0.9}[given.text])

    asked = manifest(suite(kept), [ONE])
    change = assemble(asked, records, graded, "now").variants[0].changes[Role.RETAIN]
    assert (change.points, change.scores and change.scores.points) == (0, pytest.approx(-20))
    assert change.scores is not None
    assert -30 < change.scores.low < -20 < change.scores.high < -10
    assert assemble(asked, records, score, "now").variants[0].changes[Role.RETAIN].scores is None
