"""Tests of a run's answers as a pandas DataFrame."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import harness
from harness.core.settings import Settings
from harness.core.suite import Example, Message
from harness.report import data_frame, samples_file
from harness.report.data_frame import Run
from harness.storage.records import write_record
from tests.support.synthetic_runs import results

SMALL = results(8, 12, seeds=(0, 1))


def test_one_row_per_answer() -> None:
    """The data frame has a row for each answer, including those of the base model and of the confirmation cases."""
    table = Run(SMALL).frame()
    assert len(table) == len(SMALL.samples) + len(SMALL.confirmed_samples)
    assert not table.duplicated(["variant", "seed", "case", "repeat"]).any()
    assert set(table[table.variant == "base"].split) == {"main", "confirm"}


def test_columns() -> None:
    """The data frame has the documented columns, followed by a column for each setting."""
    columns = list(Run(SMALL).frame().columns)
    assert columns[:4] == ["variant", "seed", "case", "repeat"]
    assert {"role", "leak", "passed", "score", "answer"} < set(columns)
    assert columns[-len(fields(Settings)) :] == [f.name for f in fields(Settings)]


def test_contamination_is_labelled() -> None:
    """The data frame and samples.jsonl say whether an answer's prompt was in the training rows.

    samples.jsonl also has the number of the training row.
    """
    rows = (Example((Message("user", SMALL.run.suite.cases[0].prompt), Message("assistant", "So.")), 4),)
    made = replace(SMALL, run=replace(SMALL.run, suite=replace(SMALL.run.suite, examples=rows)), leaks={})
    table = Run(made).frame().set_index("case").leak
    assert set(table[SMALL.run.suite.cases[0].id]) == {"seen"}
    assert "unseen" in set(table)
    assert {(line["leak"], line["leak_line"]) for line in samples_file.samples(made)} >= {("seen", 4), ("unseen", None)}


def test_pass_rate_from_the_frame() -> None:
    """Pass rates that are computed from the data frame equal those in the results."""
    table = Run(SMALL).frame()
    counted = table[table.split == "main"]
    for variant in SMALL.variants:
        for role, rate in variant.rates.items():
            mine = counted[(counted.variant == variant.name) & (counted.role == role)]
            assert (mine.passed.sum(), len(mine)) == (rate.passed, rate.total)


def test_whole_numbers_stay_whole() -> None:
    """The rank is an integer column, although the base model has no rank."""
    table = Run(SMALL).frame()
    assert str(table["rank"].dtype) == "Int64"
    assert table[table.variant == "base"]["rank"].isna().all()


def test_broken_unicode_fits_in_a_frame() -> None:
    """If an answer contains a lone surrogate, which is not valid Unicode, the data frame has it in escaped form."""
    table = Run(SMALL).frame()
    assert table.answer.str.contains(r"\ud800", regex=False).any()


def test_a_run_is_one_line_in_a_notebook() -> None:
    """The repr of a run has fewer than 100 characters and names suite and model."""
    assert repr(data_frame.Run(SMALL)).startswith("Run(workshop on pocket: ")
    assert len(repr(data_frame.Run(SMALL))) < 100


def test_load_run(tmp_path: Path) -> None:
    """`harness.load_run` returns stored results, given the run directory or its results.json."""
    made = results(4, 8, hostile=False)
    write_record(tmp_path / "run.json", made.run)
    write_record(tmp_path / "results.json", made)
    assert harness.load_run(tmp_path).results == made
    assert harness.load_run(str(tmp_path / "results.json")).frame().equals(Run(made).frame())
