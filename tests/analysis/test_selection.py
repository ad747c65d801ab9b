"""Tests of variant selection: which variants are eligible, which of them is chosen, and the reasons given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.score_table import Cell, ScoreTable
from harness.analysis.selection import choose, eligible
from harness.core.measurement import Basis, Phase
from harness.core.run_results import Loss, LossVerdict, Outcome
from harness.core.scores import Rate
from harness.core.suite import Role
from harness.core.training_outcome import Status
from tests.support.made_results import cost, machine
from tests.support.synthetic_runs import case, suite

SUITE = suite([case("it")], margin=10)
FEW = "more than 10 points of what the base passes on retain and avoid cases"


def loss(points: float, upper: float | None = None, needed: int | None = None) -> Loss:
    """Return a loss on 20 `retain` cases that the base model passes. Its bounds are 4 points off, if not given."""
    low, high = points - 4, points + 4 if upper is None else upper
    verdict = LossVerdict.KEEPS if high < 10 else LossVerdict.LOSES if low > 10 else LossVerdict.CANNOT_TELL
    return Loss(20, 20, points / 5, 0, points, low - 1, high + 1, low, high, verdict, needed, 20, 1)


def outcome(
    name: str, learned: int, kept: int, *, work: int = 1000, seconds: float = 0.0, **changes: object
) -> Outcome:
    """Return the outcome of a variant that passes `learned` of 20 `generalise` cases and `kept` of 20 `retain` cases.

    The bounds of the loss are 4 points below and above it.
    """
    rates = {Role.GENERALISE: Rate(learned, 20), Role.RETAIN: Rate(kept, 20)}
    costs = (cost(Phase.TRAIN, seconds, machine("cuda")),) if seconds else ()
    lost = loss(100 - 5.0 * kept)
    made = Outcome(name, None, {}, (Status.SUCCEEDED,), (0,), ("",), rates, 0, 0, 0, costs, work, 10, loss=lost)
    return replace(made, **changes)  # type: ignore[arg-type]


BASE = outcome("base", 1, 20)


def test_highest_objective_wins() -> None:
    """The eligible variant with the highest pass rate on the objective is chosen, and the reasons give the counts."""
    choice = choose(SUITE, BASE, [outcome("a", 10, 20), outcome("b", 15, 19), outcome("c", 12, 20)])
    assert choice.variant == "b"
    assert "15 of 20 (75%)" in choice.reasons[0]
    assert "1 of 20 (5%)" in choice.reasons[0]
    assert choice.eligible == ("a", "b", "c")


def test_the_margin_is_kept() -> None:
    """If a variant loses more than the margin, it is not chosen, however much it learned, and the reasons name it."""
    choice = choose(SUITE, BASE, [outcome("greedy", 20, 17), outcome("careful", 5, 19)])
    assert choice.variant == "careful"
    assert any("greedy" in reason and "10 points" in reason for reason in choice.reasons)


def test_the_bound_decides() -> None:
    """If the upper bound of a variant's loss exceeds the margin, it is not chosen, and the reasons say so."""
    few = outcome("few", 15, 20, loss=loss(0, 12))
    assert not eligible(few)
    choice = choose(SUITE, BASE, [few, outcome("sound", 8, 20)])
    assert choice.variant == "sound"
    assert f"few passes more, 15 of 20 (75%), but may lose {FEW}." in choice.reasons
    assert not any("Not considered" in reason for reason in choice.reasons)
    choice = choose(SUITE, BASE, [few, outcome("sound", 16, 20)])
    assert any(f"few, which may lose {FEW}" in reason for reason in choice.reasons)


def test_too_few_cases_are_said_to_be_too_few() -> None:
    """If no variant is eligible because there are too few cases, the reasons give the number of cases needed."""
    choice = choose(SUITE, BASE, [outcome("few", 15, 20, loss=loss(0, 12, 25))])
    assert choice.variant is None
    assert "About 25 cases like these would show it." in choice.reasons[1]


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.SUCCEEDED])
def test_every_seed_must_succeed(status: Status) -> None:
    """If a seed of a variant did not succeed, the variant is not chosen, and the reasons name it."""
    shaky = outcome("shaky", 20, 20, statuses=(Status.SUCCEEDED, status), seeds=(0, 1))
    choice = choose(SUITE, BASE, [shaky, outcome("sound", 8, 20)])
    assert choice.variant == "sound"
    why = "left the race" if status is Status.STOPPED else "did not finish"
    assert any("shaky" in reason and why in reason for reason in choice.reasons)


def test_ties_go_to_less_work_on_a_cpu() -> None:
    """On a CPU, the one of two equally good variants that needs less training work is chosen; the reasons say so."""
    choice = choose(SUITE, BASE, [outcome("big", 15, 20, work=9000), outcome("small", 15, 20, work=100)])
    assert choice.variant == "small"
    assert any("less training work" in reason and "big" in reason for reason in choice.reasons)


def table(*rows: str) -> ScoreTable:
    """Return a score table of one row per seed and one digit per case: `1` passes, `0` fails."""
    cells = {
        f"c{n}": {seed: Cell(int(row[n]), 1, float(row[n])) for seed, row in enumerate(rows)}
        for n in range(len(rows[0]))
    }
    return ScoreTable(tuple(range(len(rows))), cells)


def marked(**passes: str) -> dict[str, ScoreTable]:
    """Return a score table for each variant in `passes`, with one seed each."""
    return {name: table(row) for name, row in passes.items()}


ASKED = suite([case(f"c{n}", Role.GENERALISE) for n in range(20)], margin=10)


def test_the_cheapest_within_one_standard_error() -> None:
    """A cheaper variant is chosen if it is within one standard error of the best, and the reasons explain that."""
    best, near, far = "1" * 16 + "0" * 4, "1" * 15 + "0" * 5, "1" * 14 + "0" * 6
    rivals = [outcome("best", 16, 20, work=9000), outcome("near", 15, 20, work=500), outcome("far", 14, 20, work=100)]
    choice = choose(ASKED, BASE, rivals, marked(best=best, near=near, far=far))
    assert (choice.variant, choice.best) == ("near", "best")
    assert any("best passes most" in r and "5 points more" in r and "one standard error" in r for r in choice.reasons)


def test_the_error_is_that_of_the_pair() -> None:
    """The standard error is computed from the paired differences, case by case.

    A lead of two cases is within one standard error if many cases differ, but not if only these two differ.
    """
    wild = marked(best="1" * 15 + "0" * 5, cheap="0" * 4 + "1" * 13 + "0" * 3)
    rivals = [outcome("best", 15, 20, work=9000), outcome("cheap", 13, 20, work=100)]
    assert choose(ASKED, BASE, rivals, wild).variant == "cheap"
    tame = marked(best="1" * 15 + "0" * 5, cheap="1" * 13 + "0" * 7)
    assert choose(ASKED, BASE, rivals, tame).variant == "best"


def test_seeds_that_differ_widen_the_error() -> None:
    """If seeds differ, the standard error is larger, so that a cheaper variant may be within it."""
    passes = {"best": ("1" * 16 + "0" * 4, "1" * 8 + "0" * 12), "cheap": ("1" * 10 + "0" * 10,) * 2}
    marks = {name: table(*rows) for name, rows in passes.items()}
    rivals = [outcome("best", 12, 20, work=9000), outcome("cheap", 10, 20, work=100)]
    assert choose(ASKED, BASE, rivals, marks).variant == "cheap"
    steady = marked(best="1" * 12 + "0" * 8, cheap="1" * 10 + "0" * 10)
    assert choose(ASKED, BASE, rivals, steady).variant == "best"


def test_no_better_than_the_base_is_not_cheaper() -> None:
    """If a cheaper variant passes no more cases than the base model, it is not chosen instead of the best."""
    best, idle = "1" * 2 + "0" * 18, "1" + "0" * 19
    rivals = [outcome("best", 2, 20, work=9000), outcome("idle", 1, 20, work=100)]
    assert choose(ASKED, BASE, rivals, marked(best=best, idle=idle)).variant == "best"


def test_what_was_trained_elsewhere_is_not_chosen() -> None:
    """An adapter that was trained elsewhere is never chosen, because its settings and costs are unknown."""
    foreign = outcome("foreign", 20, 20, elsewhere=True)
    choice = choose(SUITE, BASE, [foreign, outcome("own", 8, 20)])
    assert choice.variant == "own"
    assert any("foreign" in reason and "trained elsewhere" in reason for reason in choice.reasons)


def test_ties_go_to_less_time_on_cuda() -> None:
    """On a GPU, the one of two equally good variants that trains faster is chosen, whatever its training work."""
    fast, slow = outcome("fast", 15, 20, work=9000, seconds=5), outcome("slow", 15, 20, work=100, seconds=50)
    assert choose(SUITE, BASE, [slow, fast]).variant == "fast"


def test_seconds_of_different_bases_are_not_ranked() -> None:
    """If one of two equally good variants has a measured and the other an emulated time, training work decides."""
    fast, slow = outcome("fast", 15, 20, work=9000, seconds=5), outcome("slow", 15, 20, work=100)
    slow = replace(slow, costs=(cost(Phase.TRAIN, 50, machine("cuda", Basis.EMULATED)),))
    assert choose(SUITE, BASE, [slow, fast]).variant == "slow"


def test_learn_decides_where_nothing_asks_to_generalise() -> None:
    """If a suite has no `generalise` cases, the variant that passes most `learn` cases is chosen."""
    base = replace(BASE, rates={Role.LEARN: Rate(0, 9)})
    tuned = [outcome(n, 0, 0, rates={Role.LEARN: Rate(p, 9)}, loss=None) for n, p in (("a", 3), ("b", 7))]
    choice = choose(SUITE, base, tuned)
    assert (choice.variant, choice.objective) == ("b", Role.LEARN)
    assert any("a loss cannot be measured" in reason for reason in choice.reasons)


def test_nothing_within_the_margin() -> None:
    """If every variant loses more than the margin, none is chosen, and the reasons name the one that loses least.

    They also say what this variant learned.
    """
    choice = choose(SUITE, BASE, [outcome("a", 20, 5), outcome("b", 18, 12)])
    assert choice.variant is None
    assert choice.reasons[0] == f"Every variant loses {FEW}."
    assert "b loses least" in choice.reasons[1]
    assert "breaks 8 of these" in choice.reasons[1]
    assert "more than 35 lost with 95% confidence" in choice.reasons[1]
    assert "passes 18 of 20 (90%)" in choice.reasons[2]


def test_one_that_may_lose_is_not_said_to_lose() -> None:
    """If some variants are shown to lose too much and others may, the reasons do not say that every variant loses."""
    choice = choose(SUITE, BASE, [outcome("a", 20, 5), outcome("b", 18, 18)])
    kept = FEW.replace("more", "less")
    assert choice.reasons[0] == f"No variant is shown to lose {kept}. 1 of 2 variants loses more."
    assert "5 to 15 lost with 95% confidence" in choice.reasons[1]


def test_least_is_one_of_those_that_learned() -> None:
    """A variant that learned nothing is not named as the one that loses least, unless no variant learned."""
    learned, more, idle = outcome("learned", 12, 10), outcome("more", 15, 8), outcome("idle", 1, 17)
    reason = choose(SUITE, BASE, [learned, more, idle]).reasons[1]
    assert reason.startswith("Of those that pass more generalise cases than the base, learned loses least:")
    reason = choose(SUITE, BASE, [learned, idle]).reasons[1]
    assert reason.startswith("Only learned passes more generalise cases than the base:")
    assert "idle loses least" in choose(SUITE, BASE, [outcome("worse", 0, 10), idle]).reasons[1]


def test_variants_that_lose_equally_are_all_named() -> None:
    """If two variants lose equally little, the reasons name both, and none as the one that loses least."""
    choice = choose(SUITE, BASE, [outcome("a", 20, 12), outcome("b", 18, 12), outcome("c", 20, 5)])
    assert choice.reasons[1].startswith("a and b lose least: 40 points of what the base passes lost each.")


def test_no_best_where_nothing_passes() -> None:
    """If no eligible variant passes any case of the objective, the reasons name no best one."""
    choice = choose(SUITE, BASE, [outcome("a", 0, 20), outcome("b", 0, 20)])
    assert choice.reasons == (
        "None of the 2 eligible variants passes any generalise case; the base passes 1 of 20 (5%).",
    )


def test_nothing_finished() -> None:
    """If no variant finished, none is chosen, and the reasons say how many ended in which way."""
    choice = choose(SUITE, BASE, [outcome("a", 0, 0, statuses=(Status.OUT_OF_MEMORY,), rates={})])
    assert choice.variant is None
    assert "1 out of memory" in choice.reasons[0]


def test_nothing_better_than_the_base() -> None:
    """If a variant passes no more cases of the objective than the base model, it is not chosen."""
    choice = choose(SUITE, BASE, [outcome("idle", 1, 20)])
    assert choice.variant is None
    assert any("idle" in reason for reason in choice.reasons)
    assert choice.eligible == ("idle",)


def test_the_words_give_the_bound() -> None:
    """The reasons give the loss, its upper bound and the margin. If there is only one training seed, they say so."""
    reasons = choose(SUITE, BASE, [outcome("a", 9, 19)]).reasons
    words = "5 points of what the base passes lost, and less than 9 lost with 95% confidence; the suite allows 10."
    assert any(words in reason for reason in reasons)
    assert any("another seed may lose more" in r for r in reasons)


def test_unfinished_variants_are_named_without_a_choice() -> None:
    """If no variant is chosen, the reasons also name the variants that did not finish."""
    stopped = outcome("stopped", 0, 0, statuses=(Status.CANCELLED,), rates={})
    assert any("stopped" in reason for reason in choose(SUITE, BASE, [outcome("idle", 1, 20), stopped]).reasons)


def test_answers_that_cannot_be_scored_count_as_failed() -> None:
    """When variants are compared, answers that could not be scored count as failed."""
    lacking = outcome("lacking", 12, 20, rates={Role.GENERALISE: Rate(12, 12), Role.RETAIN: Rate(20, 20)})
    assert choose(SUITE, BASE, [lacking, outcome("whole", 18, 20)]).variant == "whole"
    alone = choose(SUITE, BASE, [lacking])
    assert "12 of 20 (60%)" in alone.reasons[0]
    assert "8 answers could not be scored, which counts as failed." in alone.reasons


def test_time_is_named_only_where_it_decided() -> None:
    """If times cannot be compared, training work decides, and the reasons mention training work instead of time."""
    slow = outcome("slow", 15, 20, work=100, seconds=900)
    fast = outcome("fast", 15, 20, work=9000, costs=(cost(Phase.TRAIN, 60, machine("cuda", Basis.EMULATED)),))
    choice = choose(SUITE, BASE, [slow, fast])
    assert choice.variant == "slow"
    assert any("needs less training work (tokens x parameters) than fast" in reason for reason in choice.reasons)
