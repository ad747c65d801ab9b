"""Tests of what a suite can show: before a run by assumption, after it by the base model's answers."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis import net_loss, power
from harness.analysis.aggregate import assemble
from harness.analysis.recommendation import recommend
from harness.core.run_results import Results
from harness.core.suite import Case, Decoding, Role, Split
from harness.report import terminal
from tests.support.synthetic_runs import case, manifest, record, score, suite, variants

[ONE] = variants(1)


def guarded(retain: int, avoid: int = 0) -> list[Case]:
    return [
        *(case(f"keep {n}", Role.RETAIN) for n in range(retain)),
        *(case(f"shun {n}", Role.AVOID) for n in range(avoid)),
    ]


def run(cases: list[Case], passed: int, *, cut: int = 0, lost: int = 0) -> Results:
    """Return a run whose base passes the first `passed` guarded cases; of the others, `cut` answers were cut.

    The variant fails `lost` of the cases that the base model passes.
    """
    ids = [each.id for each in cases]
    before = {id: "good" if n < passed else "bad" for n, id in enumerate(ids)}
    after = {id: "good" if lost <= n < passed else "bad" for n, id in enumerate(ids)}
    asked = replace(suite([*cases, case("word", Role.GENERALISE)], margin=15), decoding=Decoding(32))
    records = [
        record(None, before | {"word": "bad"}, truncated=frozenset(ids[passed : passed + cut])),
        record(ONE, after | {"word": "good"}),
    ]
    return assemble(manifest(asked, [ONE]), records, score, "now")


def test_the_outlook_gives_chances_and_sizes() -> None:
    """Before a run, the sentence gives the probability for two pass rates of the base model, and the sizes for 80%."""
    said = power.outlook(suite(guarded(60, 20), margin=15))
    assert said.startswith("80 retain and avoid cases and a margin of 15 points:")
    for rate in power.ASSUMED_RATES:
        chance = net_loss.chance_shown(80, rate, 0.15)
        assert f"{100 * rate:.0f}%" in said
        assert f"{100 * chance:.0f}%" in said
        assert str(net_loss.cases_to_show(rate, 0.15)) in said


def test_groups_lower_the_outlook() -> None:
    """Cases in groups need a larger suite, and the sentence says that the number is for such groups."""
    grouped = [replace(each, group=f"g{n // 4}") for n, each in enumerate(guarded(80))]
    said = power.outlook(suite(grouped, margin=15))
    chance = net_loss.chance_shown(80, 0.7, 0.15, group=4)
    assert f"{100 * chance:.0f}%" in said
    assert "cases in groups like these" in said


def test_held_out_cases_do_not_choose() -> None:
    """The outlook counts only the cases that choose the variant, not those held out for the confirmation."""
    late = [replace(each, id=f"late {each.id}", split=Split.CONFIRM) for each in guarded(50)]
    assert power.outlook(suite([*guarded(60), *late], margin=15)).startswith("60 retain cases")


def test_nothing_guarded_has_no_outlook() -> None:
    """Without `retain` and `avoid` cases, or with a margin that allows everything or nothing, nothing is said."""
    assert power.outlook(suite([case("it")])) == ""
    assert power.outlook(suite(guarded(20), margin=100)) == ""
    assert power.outlook(suite(guarded(20), margin=0)) == ""


def test_too_few_passes_are_said_first() -> None:
    """If the base model passes too little to tell, the report and the recommendation say this first.

    The sentence counts the passes by role and the answers that were cut, and gives the number of cases that would do.
    """
    made = run(guarded(52, 12), 21, cut=22, lost=2)
    said = power.too_few_passes(made)
    assert said.startswith(
        "The base passes 21 of 52 retain and 0 of 12 avoid cases; 22 of the others were cut at 32 tokens."
    )
    needed = net_loss.cases_to_show(21 / 64, 0.15, seeds=1)
    assert f"About {needed} cases like these would do" in said
    assert "max_new_tokens" in said
    assert recommend(made).missing[0] == said
    assert said in terminal.summary(made).splitlines()[1]


def test_enough_passes_are_not_few() -> None:
    """If a variant is shown to keep what the base model can do, or all are shown to lose, nothing is said."""
    assert power.too_few_passes(run(guarded(60), 60)) == ""
    assert power.too_few_passes(run(guarded(60), 60, lost=40)) == ""


def test_a_variant_near_the_margin_is_not_the_bases_fault() -> None:
    """If the cases would suffice for a harmless variant, a loss near the margin is not put down to the cases."""
    assert power.too_few_passes(run(guarded(90), 88, lost=12)) == ""


def test_a_base_that_passes_nothing_needs_other_cases() -> None:
    """If the base model passes no guarded case, no number of cases is suggested."""
    said = power.too_few_passes(run(guarded(20), 0))
    assert said == (
        "The base passes 0 of 20 retain cases. So no loss can be measured. Use cases that the base can pass."
    )


def test_what_the_cases_can_show_has_both_mistakes() -> None:
    """It is computed how often no loss is shown, and how often a true loss of 10 points is noticed."""
    [said] = power.can_show(run(guarded(60), 45))
    shown = {size: net_loss.chance_shown(60, 0.75, size / 100, seeds=1) for size in (15.0, 10.0)}
    assert dict(said.shown) == shown
    assert said.noticed == net_loss.chance_noticed(60, 0.75, 0.1, seeds=1)
    assert (said.cases, said.seeds, said.held_out) == ("60 retain cases", 1, False)
