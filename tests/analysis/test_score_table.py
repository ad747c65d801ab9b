"""Tests of score tables, which have a cell for each case and seed: missing cells, rates, and pairs of tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.score_table import (
    FAILED,
    Cell,
    ScoreTable,
    failing_rate,
    graded,
    pair,
    score_table,
    score_tables,
)
from harness.core.answers import Answer
from harness.core.scores import Rate, Sample, Score
from harness.core.suite import Reducer
from tests.support.synthetic_runs import case

CASES = [replace(case(name), group="g") for name in ("one", "two", "three", "four")]
NAMES = [each.id for each in CASES]


def sample(name: str, seed: int, value: float | None, *, repeat: int = 0, variant: str = "a") -> Sample:
    score = Score(name, value == 1, value, error="" if value is not None else "no verdict")
    return Sample(variant, seed, name, Answer("", "", 1, False), score, repeat)


def table(*rows: str) -> ScoreTable:
    """Return a table of one row per seed and one character per case: `1` passes, `0` fails, `?` has no score."""
    values = {"1": 1.0, "0": 0.0, "?": None}
    samples = [
        sample(name, seed, values[letter])
        for seed, row in enumerate(rows)
        for name, letter in zip(NAMES, row, strict=False)
    ]
    return score_table(samples, Reducer.MEAN)


def test_an_answer_without_a_score_has_no_cell() -> None:
    """If an answer cannot be scored, the table has no cell for this case and seed, but keeps all other cells."""
    found = table("1?", "10")
    assert found.seeds == (0, 1)
    assert {name: sorted(own) for name, own in found.cells.items()} == {"one": [0, 1], "two": [1]}


def test_rates_leave_it_out() -> None:
    """If a case has no cell under a seed, it does not count in the pass rate under that seed."""
    assert table("1?0", "1?1").rate(NAMES) == Rate(3, 4)
    assert table("??").rate(NAMES) == Rate(0, 0)


@pytest.mark.parametrize(
    ("reducer", "expected"),
    [(Reducer.MEAN, Cell(2, 3, 0.75)), (Reducer.ALL, Cell(0, 1, 0.25)), (Reducer.ANY, Cell(1, 1, 1.0))],
)
def test_repeats_are_one_cell(reducer: Reducer, expected: Cell) -> None:
    """A cell counts every repeat under the reducer `mean`, but one verdict for all repeats under `all` and `any`."""
    samples = [sample("one", 0, value, repeat=n) for n, value in enumerate((1.0, 0.25, 1.0))]
    assert score_table(samples, reducer).cells["one"][0] == expected


@pytest.mark.parametrize(("reducer", "cells"), [(Reducer.MEAN, 1), (Reducer.ALL, 0), (Reducer.ANY, 0)])
def test_a_repeat_without_a_score(reducer: Reducer, cells: int) -> None:
    """If one repeat cannot be scored, `mean` leaves the repeat out, and under `all` and `any` there is no cell."""
    samples = [sample("one", 0, value, repeat=n) for n, value in enumerate((1.0, None))]
    assert len(score_table(samples, reducer).cells) == cells


def test_pairs_hold_the_cases_that_both_have() -> None:
    """A pair of tables leaves out cases that are missing in one of them or have no score under one of its seeds."""
    found = pair(CASES, table("111"), table("1000", "1?00"))
    assert found is not None
    assert found.before.tolist() == [[1.0, 1.0]]
    assert found.after.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert found.groups == ("g", "g")
    assert pair(CASES, table("111"), ScoreTable()) is None


def test_the_caller_names_the_seeds() -> None:
    """By default, a pair ignores a seed without any score. If the caller names that seed, no case can be compared."""
    before, after = table("11"), table("10", "??")
    found = pair(CASES, before, after)
    assert found is not None
    assert found.after.tolist() == [[1.0, 0.0]]
    assert pair(CASES, before, after, seeds=(before.seeds, after.seeds)) is None
    assert after.complete(NAMES, after.seeds) == []


def test_missing_cells_can_be_failures() -> None:
    """`failing` fills missing cells with failures, and `failing_rate` counts missing answers as failed."""
    filled = table("1?", "11").failing(["one", "two"], [0, 1, 2])
    assert filled.cells["two"][0] == filled.cells["one"][2] == FAILED
    assert filled.rate(NAMES) == Rate(3, 6)
    assert failing_rate(Rate(3, 4), 6) == Rate(3, 6)
    assert failing_rate(Rate(3, 4), 0) == Rate(3, 4)


def test_means_of_scores_are_compared_likewise() -> None:
    """If two tables are compared by graded scores, cases without a score are left out, as in a comparison by passes."""
    before = score_table([sample("one", 0, 0.5), sample("two", 0, None)], Reducer.MEAN)
    after = score_table([sample("one", 0, 0.75), sample("two", 0, 1.0)], Reducer.MEAN)
    found = pair(CASES, before, after, measure=graded)
    assert found is not None
    assert (found.before.tolist(), found.after.tolist()) == ([[0.5]], [[0.75]])


def test_a_majority_is_more_than_half() -> None:
    """A case passes by majority if it passes under more than half of the seeds that have a cell for it."""
    found = table("110?", "10?", "101")
    assert [found.majority(name) for name in NAMES] == [True, False, False, False]


def test_every_variant_has_a_table() -> None:
    """`score_tables` returns one table for each variant."""
    found = score_tables([sample("one", 0, 1.0), sample("one", 0, 0.0, variant="b")], Reducer.MEAN)
    assert {name: own.rate(NAMES) for name, own in found.items()} == {"a": Rate(1, 1), "b": Rate(0, 1)}
