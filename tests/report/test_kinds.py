"""Tests of the kinds of cases."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.score_table import score_tables
from harness.core.suite import Assertion, Role, Split
from harness.report import kinds
from tests.support.report_runs import sample_run
from tests.support.synthetic_runs import case


def test_a_kind_is_the_group_or_the_name() -> None:
    """A case's kind is its group, else its id without role and number; names with one first word are one kind."""
    cases = [
        case("retain-json-1", Role.RETAIN), case("retain-json-2", Role.RETAIN), case("retain-read-pet-1", Role.RETAIN),
        case("retain-read-job-1", Role.RETAIN), case("retain-alone-1", Role.RETAIN),
        replace(case("x", Role.LEARN), group="price"),
    ]  # fmt: skip
    found = kinds.kind_of(cases)
    assert [found[each.id] for each in cases] == ["json", "json", "read-…", "read-…", kinds.OTHER, "price"]


def test_cells_add_up() -> None:
    """What a variant kept and lost of a kind is what the base passes of it, and no case is counted twice."""
    whole = sample_run()
    table = kinds.kinds(whole, score_tables(whole.samples, whole.run.suite.reducer))
    assert table
    rows = [row for _, own in table.rows for row in own]
    assert sum(row.cases for row in rows) == sum(case.split == "main" for case in whole.run.suite.cases)
    for row in rows:
        for cell in row.cells:
            assert abs(cell.kept + cell.lost - float(row.base)) < 0.06
            assert cell.gained <= cell.cases - cell.kept - cell.lost + 1e-9


def test_a_case_for_a_judge_alone_counts_for_no_kind() -> None:
    """Kinds count the cases that pass rates count: not those that only a judge can judge."""
    whole = sample_run()
    first, *others = whole.run.suite.cases
    asked = replace(first, assertions=(Assertion("llm-rubric", "is polite"),))
    run = replace(whole.run, suite=replace(whole.run.suite, cases=(asked, *others)))
    without = replace(whole, run=run, samples=tuple(each for each in whole.samples if each.case != first.id))
    table = kinds.kinds(without, score_tables(without.samples, run.suite.reducer))
    assert table
    assert sum(row.cases for _, own in table.rows for row in own) == sum(case.split == "main" for case in others)


def test_shades_follow_the_net_change() -> None:
    """A cell is shaded by the share of its cases that were lost or gained, net; without a change it has no shade."""
    shades = [
        kinds.KindCell(5 - lost, lost, gained, 10).shade for lost, gained in ((0, 0), (5, 0), (0, 5), (1, 0), (2, 2))
    ]
    assert shades == ["same", "l3", "g3", "l1", "same"]


def test_held_out_cases_have_kinds_of_their_own() -> None:
    """The kinds of a variant on held-out cases count those cases and no others, with its answers to them."""
    whole = sample_run("cuda")
    best = next(v for v in whole.variants if v.name == whole.choice.variant)
    found = kinds.of_variant(whole, best, held_out=True)
    assert whole.confirmed
    assert sum(cell.cases for cell in found.values()) == len(whole.run.suite.of(Split.CONFIRM))
    for role, rate in whole.confirmed.rates.items():
        passed = sum(cell.passed for (at, _), cell in found.items() if at is role)
        assert abs(passed * len(whole.confirmed.seeds) - rate.passed) < 1e-9


def test_a_kind_that_changed_as_a_whole_has_a_shade_of_its_own() -> None:
    """A cell whose cases were all lost has another shade than one in which a single case was kept."""
    assert [kinds.KindCell(kept, 100 - kept, 0, 100).shade for kept in (0, 1, 30)] == ["l5", "l4", "l3"]
