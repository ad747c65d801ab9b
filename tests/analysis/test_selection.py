"""Variant selection: eligibility, the choice, and its reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.score_table import Cell, ScoreTable
from harness.analysis.selection import choose, eligible, refuted
from harness.core.measurement import Basis, Phase
from harness.core.run_results import Outcome, Safety
from harness.core.scores import Rate
from harness.core.suite import Role
from harness.core.training_outcome import Status
from tests.support.synthetic_runs import case, cost, machine, suite

SUITE = suite([case("it")], margin=10)


def outcome(
    name: str, learned: int, kept: int, *, work: int = 1000, seconds: float = 0.0, **changes: object
) -> Outcome:
    """An outcome of 20 `generalise` and 20 `retain` cases whose loss bound is 4 points above the loss."""
    rates = {Role.GENERALISE: Rate(learned, 20), Role.RETAIN: Rate(kept, 20)}
    costs = (cost(Phase.TRAIN, seconds, machine("cuda")),) if seconds else ()
    safety = Safety(100 - 5.0 * kept, 104 - 5.0 * kept, 20, 50)
    made = Outcome(name, None, {}, (Status.SUCCEEDED,), (0,), ("",), rates, 0, 0, 0, costs, work, 10, safety=safety)
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
    """A variant that loses more points than the margin is not chosen, whatever it learned, and is listed."""
    choice = choose(SUITE, BASE, [outcome("greedy", 20, 17), outcome("careful", 5, 19)])
    assert choice.variant == "careful"
    assert any("greedy" in reason and "10 points" in reason for reason in choice.reasons)


def test_the_bound_decides() -> None:
    """A variant whose possible loss exceeds the margin is not chosen, and is listed as unclear."""
    few = outcome("few", 15, 20, safety=Safety(0, 12, 20, 25))
    assert not eligible(SUITE, few)
    choice = choose(SUITE, BASE, [few, outcome("sound", 8, 20)])
    assert choice.variant == "sound"
    assert any("few, which may lose 10 points or more" in reason for reason in choice.reasons)


def test_too_few_cases_are_said_to_be_too_few() -> None:
    """If no variant is eligible, the reasons give the number of cases that would show eligibility."""
    choice = choose(SUITE, BASE, [outcome("few", 15, 20, safety=Safety(0, 12, 20, 25))])
    assert choice.variant is None
    assert "on retain and avoid cases: 20 such cases are too few. About 25 cases" in choice.reasons[0]


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.SUCCEEDED])
def test_every_seed_must_succeed(status: Status) -> None:
    """A variant with a seed that did not succeed is not chosen, and is listed."""
    shaky = outcome("shaky", 20, 20, statuses=(Status.SUCCEEDED, status), seeds=(0, 1))
    choice = choose(SUITE, BASE, [shaky, outcome("sound", 8, 20)])
    assert choice.variant == "sound"
    assert any("shaky" in reason and "did not finish" in reason for reason in choice.reasons)


def test_ties_go_to_less_work_on_a_cpu() -> None:
    """On a CPU, of equally good variants the one with less training work is chosen, and the reasons say so."""
    choice = choose(SUITE, BASE, [outcome("big", 15, 20, work=9000), outcome("small", 15, 20, work=100)])
    assert choice.variant == "small"
    assert any("less training work" in reason and "big" in reason for reason in choice.reasons)


def table(*rows: str) -> ScoreTable:
    """A score table with a row per seed and a letter per case: `1` passes."""
    cells = {
        f"c{n}": {seed: Cell(int(row[n]), 1, float(row[n])) for seed, row in enumerate(rows)}
        for n in range(len(rows[0]))
    }
    return ScoreTable(tuple(range(len(rows))), cells)


def marked(**passes: str) -> dict[str, ScoreTable]:
    """The score tables of several variants, each trained under one seed."""
    return {name: table(row) for name, row in passes.items()}


ASKED = suite([case(f"c{n}", Role.GENERALISE) for n in range(20)], margin=10)


def test_the_cheapest_within_one_standard_error() -> None:
    """A cheaper variant that passes one case less is chosen with an explanation; one that passes two less is not."""
    best, near, far = "1" * 16 + "0" * 4, "1" * 15 + "0" * 5, "1" * 14 + "0" * 6
    rivals = [outcome("best", 16, 20, work=9000), outcome("near", 15, 20, work=500), outcome("far", 14, 20, work=100)]
    choice = choose(ASKED, BASE, rivals, marked(best=best, near=near, far=far))
    assert (choice.variant, choice.best) == ("near", "best")
    assert any("best passes most" in r and "5 points more" in r and "one standard error" in r for r in choice.reasons)


def test_the_error_is_that_of_the_pair() -> None:
    """The standard error is that of the paired difference.

    A gap of two cases is within it if many other cases differ, too, and exceeds it if no other case differs.
    """
    wild = marked(best="1" * 15 + "0" * 5, cheap="0" * 4 + "1" * 13 + "0" * 3)
    rivals = [outcome("best", 15, 20, work=9000), outcome("cheap", 13, 20, work=100)]
    assert choose(ASKED, BASE, rivals, wild).variant == "cheap"
    tame = marked(best="1" * 15 + "0" * 5, cheap="1" * 13 + "0" * 7)
    assert choose(ASKED, BASE, rivals, tame).variant == "best"


def test_seeds_that_differ_widen_the_error() -> None:
    """Variation between seeds widens the standard error beyond that of the cases."""
    passes = {"best": ("1" * 16 + "0" * 4, "1" * 8 + "0" * 12), "cheap": ("1" * 10 + "0" * 10,) * 2}
    marks = {name: table(*rows) for name, rows in passes.items()}
    rivals = [outcome("best", 12, 20, work=9000), outcome("cheap", 10, 20, work=100)]
    assert choose(ASKED, BASE, rivals, marks).variant == "cheap"
    steady = marked(best="1" * 12 + "0" * 8, cheap="1" * 10 + "0" * 10)
    assert choose(ASKED, BASE, rivals, steady).variant == "best"


def test_no_better_than_the_base_is_not_cheaper() -> None:
    """A cheap variant within one standard error is not chosen if it passes no more than the base."""
    best, idle = "1" * 2 + "0" * 18, "1" + "0" * 19
    rivals = [outcome("best", 2, 20, work=9000), outcome("idle", 1, 20, work=100)]
    assert choose(ASKED, BASE, rivals, marked(best=best, idle=idle)).variant == "best"


def test_what_was_trained_elsewhere_is_not_chosen() -> None:
    """An adapter with unknown settings and costs is never chosen."""
    foreign = outcome("foreign", 20, 20, elsewhere=True)
    choice = choose(SUITE, BASE, [foreign, outcome("own", 8, 20)])
    assert choice.variant == "own"
    assert any("foreign" in reason and "trained elsewhere" in reason for reason in choice.reasons)


def test_ties_go_to_less_time_on_cuda() -> None:
    """On one GPU, of equally good variants the fastest to train is chosen, regardless of its number of parameters."""
    fast, slow = outcome("fast", 15, 20, work=9000, seconds=5), outcome("slow", 15, 20, work=100, seconds=50)
    assert choose(SUITE, BASE, [slow, fast]).variant == "fast"


def test_seconds_of_different_bases_are_not_ranked() -> None:
    """Measured and emulated times are not compared; training work decides instead."""
    fast, slow = outcome("fast", 15, 20, work=9000, seconds=5), outcome("slow", 15, 20, work=100)
    slow = replace(slow, costs=(cost(Phase.TRAIN, 50, machine("cuda", Basis.EMULATED)),))
    assert choose(SUITE, BASE, [slow, fast]).variant == "slow"


def test_learn_decides_where_nothing_asks_to_generalise() -> None:
    """In a suite without `generalise` cases, the `learn` cases decide."""
    base = replace(BASE, rates={Role.LEARN: Rate(0, 9)})
    tuned = [outcome(n, 0, 0, rates={Role.LEARN: Rate(p, 9)}, safety=None) for n, p in (("a", 3), ("b", 7))]
    choice = choose(SUITE, base, tuned)
    assert (choice.variant, choice.objective) == ("b", Role.LEARN)
    assert any("a loss cannot be measured" in reason for reason in choice.reasons)


def test_nothing_within_the_margin() -> None:
    """If every variant loses too much, none is chosen, and the reasons name the smallest loss with its counts."""
    choice = choose(SUITE, BASE, [outcome("a", 20, 5), outcome("b", 20, 12)])
    assert choice.variant is None
    assert any("b loses least" in reason and "12 of 20" in reason for reason in choice.reasons)


def test_nothing_finished() -> None:
    """If no variant finished, none is chosen, and the reasons count the statuses."""
    choice = choose(SUITE, BASE, [outcome("a", 0, 0, statuses=(Status.OUT_OF_MEMORY,), rates={})])
    assert choice.variant is None
    assert "1 out of memory" in choice.reasons[0]


def test_nothing_better_than_the_base() -> None:
    """A variant that passes no more of the objective than the base is not chosen."""
    choice = choose(SUITE, BASE, [outcome("idle", 1, 20)])
    assert choice.variant is None
    assert any("idle" in reason for reason in choice.reasons)
    assert choice.eligible == ("idle",)


def test_the_words_give_the_bound() -> None:
    """The reasons give the loss, its bound, the margin, and a note if there was only one training seed."""
    reasons = choose(SUITE, BASE, [outcome("a", 9, 19)]).reasons
    assert any("5 points lost, and below 9 with 95% confidence; the suite allows 10." in r for r in reasons)
    assert any("another seed may lose more" in r for r in reasons)


def test_a_confirmation_can_refute() -> None:
    """A confirmation with a loss above the margin, or no gain over the base, contradicts the choice."""
    assert not refuted(SUITE, Role.GENERALISE, BASE, outcome("sound", 15, 19))
    [loses] = refuted(SUITE, Role.GENERALISE, BASE, outcome("forgetful", 15, 17))
    assert "15 points less than the base" in loses
    [idle] = refuted(SUITE, Role.GENERALISE, BASE, outcome("idle", 1, 20))
    assert "passes 1 of 20 (5%)" in idle


def test_an_unstable_training_is_refuted() -> None:
    """Failed trainings under fresh seeds contradict the choice; cancelled ones do not."""
    ended = (Status.SUCCEEDED, Status.DIVERGED, Status.CANCELLED)
    [reason] = refuted(SUITE, Role.GENERALISE, BASE, outcome("shaky", 15, 20, statuses=ended))
    assert "1 of 2 fresh seeds" in reason
    assert "diverged" in reason
    stopped = (Status.SUCCEEDED, Status.CANCELLED)
    assert not refuted(SUITE, Role.GENERALISE, BASE, outcome("stopped", 15, 20, statuses=stopped))


def test_unfinished_variants_are_named_without_a_choice() -> None:
    """If no variant is chosen, the reasons also list the variants that did not finish."""
    stopped = outcome("stopped", 0, 0, statuses=(Status.CANCELLED,), rates={})
    assert any("stopped" in reason for reason in choose(SUITE, BASE, [outcome("idle", 1, 20), stopped]).reasons)


def test_answers_that_cannot_be_scored_count_as_failed() -> None:
    """Unscored answers count as failed: 12 of 12 scored answers out of 20 lose against 18 of 20."""
    lacking = outcome("lacking", 12, 20, rates={Role.GENERALISE: Rate(12, 12), Role.RETAIN: Rate(20, 20)})
    assert choose(SUITE, BASE, [lacking, outcome("whole", 18, 20)]).variant == "whole"
    alone = choose(SUITE, BASE, [lacking])
    assert "12 of 20 (60%)" in alone.reasons[0]
    assert "8 answers could not be scored, which counts as failed." in alone.reasons
    assert refuted(SUITE, Role.GENERALISE, outcome("base", 13, 20), lacking)


def test_time_is_named_only_where_it_decided() -> None:
    """Times of two devices are not compared, and the reasons do not mention time."""
    slow = outcome("slow", 15, 20, work=100, seconds=900)
    fast = outcome("fast", 15, 20, work=9000, costs=(cost(Phase.TRAIN, 60, machine("cuda", Basis.EMULATED)),))
    choice = choose(SUITE, BASE, [slow, fast])
    assert choice.variant == "slow"
    assert any("needs less training work (tokens x parameters) than fast" in reason for reason in choice.reasons)
