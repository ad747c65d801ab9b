"""Tests of the losses of a run's variants: verdicts, and what is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis import losses
from harness.analysis.score_table import Cell, ScoreTable
from harness.core.run_results import Loss, LossVerdict
from harness.core.suite import Case, Role
from tests.support.synthetic_runs import case

MARGIN = 15.0
CASES = [case(f"c{n}", Role.RETAIN if n % 2 else Role.AVOID) for n in range(60)]


def table(*failed: int, cases: list[Case] = CASES) -> ScoreTable:
    """Return the scores of a model with one seed for each number, which says how many of the first cases fail."""
    cells = {
        each.id: {seed: Cell(int(n >= many), 1, float(n >= many)) for seed, many in enumerate(failed)}
        for n, each in enumerate(cases)
    }
    return ScoreTable(tuple(range(len(failed))), cells)


def one(base: ScoreTable, own: ScoreTable, *, margin: float = MARGIN, cases: list[Case] = CASES) -> Loss:
    [found] = losses.losses(cases, losses.GUARDED, base, [own], margin)
    assert found is not None
    return found


def test_three_verdicts() -> None:
    """A variant without loss keeps, one that lost half loses, and of one that lost a tenth the cases cannot tell."""
    found = [one(table(0), table(many, many, many)) for many in (0, 6, 30)]
    assert [each.verdict for each in found] == [LossVerdict.KEEPS, LossVerdict.CANNOT_TELL, LossVerdict.LOSES]
    assert [each.points for each in found] == pytest.approx([0, 10, 50])
    keeps, unclear, loses = found
    assert keeps.upper is not None
    assert keeps.upper < MARGIN
    assert unclear.needed is not None
    assert unclear.needed > 60
    assert loses.low is not None
    assert loses.low > MARGIN
    assert (keeps.needed, loses.needed) == (None, None)


def test_only_the_whole_interval_shows_a_loss() -> None:
    """A one-sided 95% bound above the margin does not show a loss if the two-sided interval begins below the margin."""
    between = [
        loss
        for many in range(60)
        if (loss := one(table(0), table(many))).low is not None and loss.low < MARGIN < (loss.lower or 0.0)
    ]
    assert between
    assert {loss.verdict for loss in between} == {LossVerdict.CANNOT_TELL}


def test_a_loss_in_one_role_is_named() -> None:
    """A loss on the cases of one role is named, even if the cases of both roles together hide it; no loss, nothing."""
    cases = [case(f"c{n}", Role.AVOID if n < 20 else Role.RETAIN) for n in range(120)]

    def sentences(broken: int) -> tuple[str, ...]:
        [own] = losses.by_role(cases, table(0, cases=cases), [table(broken, broken, cases=cases)], MARGIN)
        return losses.lost_in_one_role(own, MARGIN)

    [found] = sentences(8)
    assert found.startswith("On the avoid cases alone, the base passes 20 of 20 cases; the variant breaks 8 ")
    assert "40 points of what the base passes lost, and " in found
    assert sentences(0) == ()


@pytest.mark.parametrize(("cases", "broken", "shown"), [(600, 60, True), (12, 2, True), (60, 1, False)])
def test_a_loss_in_one_role_is_named_if_it_is_shown_or_large(cases: int, broken: int, shown: bool) -> None:
    """A loss is named if its interval is above zero, or if its estimate is above the margin; else it is not."""
    both = [*(case(f"a{n}", Role.AVOID) for n in range(cases)), *(case(f"r{n}", Role.RETAIN) for n in range(60))]
    [own] = losses.by_role(both, table(0, cases=both), [table(broken, cases=both)], MARGIN)
    loss = own[Role.AVOID]
    assert (loss.low is not None and loss.low > 0, (loss.points or 0.0) > MARGIN) == (cases == 600, cases == 12)
    assert bool(losses.lost_in_one_role(own, MARGIN)) is shown


def test_what_the_base_fails_can_be_fixed() -> None:
    """A case that the base model fails and the variant passes makes up for a broken case."""
    base, own = table(20), table(0)
    broken = {each.id: {0: Cell(0, 1, 0.0)} for each in CASES[40:60]}
    found = one(base, replace(own, cells={**own.cells, **broken}))
    assert (found.base_passed, found.broken, found.fixed, found.points) == (40, 20, 20, 0)


def test_a_base_that_passes_too_little_tells_nothing() -> None:
    """If the base model passes fewer cases than even a harmless variant needs, the verdict is "cannot tell"."""
    assert one(table(42), table(42)).verdict is LossVerdict.CANNOT_TELL
    assert one(table(40), table(60)).verdict is LossVerdict.LOSES
    assert one(table(42), table(60)).verdict is LossVerdict.CANNOT_TELL
    nothing = one(table(60), table(0))
    assert (nothing.points, nothing.upper, nothing.verdict) == (None, None, LossVerdict.CANNOT_TELL)


def test_a_margin_of_everything_allows_every_loss() -> None:
    """With a margin of 100 points, a variant keeps enough even if it passes nothing."""
    assert one(table(0), table(60), margin=100).verdict is LossVerdict.KEEPS


def test_a_margin_of_nothing_takes_a_gain() -> None:
    """With a margin of 0, an equal variant is not shown to keep, but one with a clear net gain is."""
    assert one(table(30), table(30, 30, 30), margin=0).verdict is LossVerdict.CANNOT_TELL
    assert one(table(30), table(0, 0, 0), margin=0).verdict is LossVerdict.KEEPS


def test_missing_answers_of_the_variant_count_as_failed() -> None:
    """An answer of the variant without a score counts as broken; a case without a score of the base is left out."""
    own, base = table(0), table(0)
    lacking = replace(own, cells={id: seeds for id, seeds in own.cells.items() if id not in {"c0", "c1"}})
    assert one(base, lacking).broken == 2
    few = replace(base, cells={id: seeds for id, seeds in base.cells.items() if id != "c0"})
    assert (one(few, lacking).cases, one(few, lacking).broken) == (59, 1)


def test_unfinished_variants_have_no_loss() -> None:
    """If a variant gave no answers, or the suite has no such cases, there is no loss."""
    assert losses.losses(CASES, losses.GUARDED, table(0), [ScoreTable()], MARGIN) == [None]
    assert losses.losses([case("it")], losses.GUARDED, table(0), [table(0)], MARGIN) == [None]


def test_each_role_has_its_loss() -> None:
    """The losses by role count the cases of one role each."""
    [found] = losses.by_role(CASES, table(0), [table(10)], MARGIN)
    assert {role: (each.cases, each.broken) for role, each in found.items()} == {
        Role.RETAIN: (30, 5),
        Role.AVOID: (30, 5),
    }


def test_one_seed_is_named() -> None:
    """With one seed, the words say that the verdict holds for one training."""
    assert "another seed may lose more" in losses.bounded(one(table(0), table(0)), MARGIN)
    assert "another seed" not in losses.bounded(one(table(0), table(0, 0)), MARGIN)


def test_groups_are_named() -> None:
    """If cases belong to groups, the words give the number of groups."""
    grouped = [replace(each, group=f"g{n // 3}") for n, each in enumerate(CASES)]
    assert "the base passes 60 of 60 cases in 20 groups" in losses.counts(one(table(0), table(3), cases=grouped))
    assert "group" not in losses.counts(one(table(0), table(3)))


def test_other_variants_do_not_matter() -> None:
    """The loss of a variant is the same alone and beside others, whether their seeds agree or one of them diverged."""
    shaky, calm, diverged = table(0, 1, 6), table(2, 2, 2), table(5, 60, 30)
    together = losses.losses(CASES, losses.GUARDED, table(0), [shaky, calm, calm, calm, diverged], MARGIN)[0]
    assert together == one(table(0), shaky)
