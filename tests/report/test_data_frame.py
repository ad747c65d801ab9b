"""Tests of a run's answers as a pandas DataFrame."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.analysis.aggregate import assemble
from harness.core.answers import Answer
from harness.core.run_results import Results
from harness.core.scores import Score
from harness.core.settings import Settings
from harness.core.suite import Case, Example, Message, Reducer, Role
from harness.report import data_frame, samples_file
from harness.report.data_frame import Run
from harness.storage.records import write_record
from tests.support.synthetic_runs import case, manifest, record, results, score, suite, variants

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


def unscored(case: Case, answer: Answer) -> Score:
    """Score an answer as the synthetic runs do, but give no score to the answer "unclear"."""
    return Score(case.id, False, None, error="unclear") if answer.text == "unclear" else score(case, answer)


def with_unscored_answers(reducer: Reducer) -> Results:
    """Return a run with repeats, of which some have no score."""
    asked = suite([case(f"{role}-{n}", role) for role in (Role.LEARN, Role.RETAIN) for n in range(4)])
    texts = (("good", "good"), ("bad", "good"), ("unclear", "good"), ("unclear", "unclear"))
    tuned = {each.id: texts[n % 4] for n, each in enumerate(asked.cases)}
    base = {each.id: (("good", "unclear") if n == 5 else ("bad", "good")) for n, each in enumerate(asked.cases)}
    (variant,) = variants(1)
    sampled = replace(asked, repeats=2, reducer=reducer, decoding=replace(asked.decoding, temperature=1.0))
    records = [record(None, base), *(record(variant, tuned, seed=seed) for seed in (0, 1))]
    return assemble(manifest(sampled, [variant], (0, 1)), records, unscored, "2026-01-02T03:24:05+00:00")


def recipe() -> str:
    """Return the example in docs/report.md that computes pass rates."""
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "groupby" in block]
    return str(found)


RUNS = [SMALL, *(with_unscored_answers(reducer) for reducer in Reducer)]


@pytest.mark.parametrize("made", RUNS, ids=["one answer", *Reducer])
def test_the_documented_pass_rates_are_the_reports(
    made: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example in docs/report.md gives the rates in results.json, also with repeats and answers without a score."""
    folder = tmp_path / "reports" / "runs" / "workshop-quick-pocket"
    folder.mkdir(parents=True)
    write_record(folder / "run.json", made.run)
    write_record(folder / "results.json", made)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(recipe(), names)
    stored = harness.load_run(folder).results
    rates = {(v.name, r.value): rate.value for v in (stored.base, *stored.variants) for r, rate in v.rates.items()}
    assert dict(names["rates"].dropna()) == pytest.approx(
        {key: rate for key, rate in rates.items() if rate is not None}
    )


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
