"""Tests of runs with several quantisations: each variant is compared with the base model in its own quantisation."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.recommendation import recommend
from harness.analysis.selection import Caps
from harness.core.names import BASE
from harness.core.run_results import Finding, LossVerdict
from harness.core.suite import Role, Split
from tests.support.synthetic_runs import record
from tests.support.two_bases import FOUR_BIT, NF4, NONE, PLAIN, SIZE, answers, assembled, base, two_bases

OTHER = "base quant=nf4"


def test_there_is_a_base_for_each_quantization() -> None:
    """`base` is the base model in the plan's first quantisation, and `bases` has the others, with their own answers."""
    found = two_bases()
    assert (found.base.name, [each.name for each in found.bases.values()]) == (BASE, [OTHER])
    assert [each.rates[Role.RETAIN].passed for each in found.every_base] == [SIZE, SIZE // 2]
    assert [found.base_of(variant).name for variant in found.variants] == [BASE, OTHER]
    assert {s.variant for s in found.samples} == {BASE, OTHER, PLAIN.name, FOUR_BIT.name}
    assert all(each.untrained for each in found.every_base)


def test_a_variant_is_compared_with_its_own_base() -> None:
    """Losses, gains, and fixed and broken cases of a variant are those from the base in its quantisation."""
    plain, four = two_bases().variants
    assert plain.loss
    assert four.loss
    assert (plain.loss.base_passed, plain.loss.points) == (SIZE, 0)
    assert (four.loss.base_passed, four.loss.points) == (SIZE // 2, 0)
    assert (plain.fixed, plain.broken) == (0, 0)
    assert (four.fixed, four.broken) == (SIZE // 2, 0)
    assert four.changes[Role.GENERALISE].points == 50


def test_the_order_of_the_records_does_not_matter() -> None:
    """A time limit may run another quantisation first, and the results stay the same."""
    records = (
        base(NONE, answers(20, 40)),
        base(NF4, answers(0, 20)),
        record(PLAIN, answers(20, 40)),
        record(FOUR_BIT, answers(20, 20)),
    )
    assert assembled(*records) == assembled(*reversed(records))


def test_a_variant_must_be_better_than_its_own_base() -> None:
    """A variant is chosen if it passes more than its own base, even if another base passes as many.

    The reasons name the base that it is compared with.
    """
    found = two_bases()
    assert found.choice.variant == FOUR_BIT.name
    assert f"it passes 20 of 40 (50%); the {OTHER} passes 0 of 40 (0%)." in found.choice.reasons[0]
    capped = recommend(found, Caps(memory=1000.0))
    assert capped.best is None, "without figures of a GPU, no variant fits a cap"


def test_the_confirmation_uses_the_base_of_the_chosen_variant() -> None:
    """Held-out answers are compared with those of the base in the chosen variant's quantisation only."""
    found = two_bases()
    assert found.confirmed_base
    assert found.confirmed_base.name == OTHER
    assert found.confirmed
    assert found.confirmed.loss
    assert (found.confirmed.loss.base_passed, found.confirmed.loss.points) == (SIZE // 2, 0)
    assert found.choice.confirmation
    assert found.choice.confirmation.finding is not Finding.REFUTED
    late = base(NONE, answers(40, 40, Split.CONFIRM), Split.CONFIRM)  # of a variant that was chosen earlier
    records = [
        base(NONE, answers(20, 40)),
        base(NF4, answers(0, 20)),
        record(PLAIN, answers(20, 40)),
        record(FOUR_BIT, answers(20, 20)),
        late,
        base(NF4, answers(0, 20, Split.CONFIRM), Split.CONFIRM),
    ]
    again = assembled(*records)
    assert again.confirmed_base
    assert again.confirmed_base.rates[Role.RETAIN].passed == SIZE // 2


def test_a_variant_without_its_base_is_not_chosen() -> None:
    """If the base in a quantisation has no answers, its variants are compared with nothing and cannot be chosen."""
    records = (base(NONE, answers(20, 40)), record(PLAIN, answers(20, 40)), record(FOUR_BIT, answers(40, 40)))
    found = assembled(*records)
    four = found.variants[1]
    assert four.changes == {}
    assert four.loss is None or four.loss.verdict is LossVerdict.CANNOT_TELL
    assert found.choice.variant is None
    assert f"Not considered: {FOUR_BIT.name}, whose base model has no scored answers." in found.choice.reasons


def test_records_of_earlier_versions() -> None:
    """A base model's record that does not name its quantisation counts as that of the plan's first one."""
    found = assembled(base(None, answers(20, 40)), record(PLAIN, answers(20, 40)), record(FOUR_BIT, answers(40, 40)))
    assert found.base.rates[Role.RETAIN].passed == SIZE
    assert found.bases[NF4].rates == {}
    both = assembled(base(None, answers(0, 0)), base(NONE, answers(20, 40)), record(PLAIN, answers(20, 40)))
    assert both.base.seeds == (0,)
    assert both.base.rates[Role.RETAIN].passed == SIZE


def test_one_quantization_has_one_base() -> None:
    """A run with one quantisation has no further bases, whichever quantisation it is."""
    found = two_bases()
    plan = replace(found.run.plan, variants=(FOUR_BIT,))
    assert plan.bases == {NF4: BASE}
