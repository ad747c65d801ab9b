"""Tests that files of older formats are read, and upgraded to the newest format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.recommendation import recommend
from harness.core.errors import StoreError
from harness.core.formats import FORMAT, RESULTS_FORMAT
from harness.core.run_results import Results
from harness.storage.records import read_record
from harness.storage.runs import RunStore
from tests.support.synthetic_runs import results

OLD = Path(__file__).parent / "results-format-1.json"
"""Some of the results of `harness run suites/workshop`, written in format 1."""
VOID = Path(__file__).parent / "results-format-2.json"
"""The same results, written in format 2, which left out some cases."""


def test_the_samples_of_format_1_hold_answers() -> None:
    """If a sample of format 1 is read, its text, tokens and log-probabilities become an answer with an empty key."""
    stored: dict[str, Any] = json.loads(OLD.read_text(encoding="utf-8"))
    found = read_record(OLD, Results)
    assert (stored["format"], found.format) == (FORMAT, RESULTS_FORMAT)
    for name in ("samples", "confirmed_samples"):
        for old, new in zip(stored[name], getattr(found, name), strict=True):
            answer = new.answer
            assert (answer.key, answer.text) == ("", old["answer"])
            assert (answer.tokens, answer.truncated) == (old["tokens"], old["truncated"])
            assert (answer.likelihood.total, answer.reference.total) == (
                old["likelihood"]["total"],
                old["reference"]["total"],
            )
            assert (new.variant, new.seed, new.case) == (old["variant"], old["seed"], old["case"])


def test_figures_of_format_2_are_dropped() -> None:
    """If results of format 2 are read, their answers stay, and all figures that left out some cases are removed.

    The reason for the missing choice gives the command that computes them again.
    """
    stored: dict[str, Any] = json.loads(VOID.read_text(encoding="utf-8"))
    found = read_record(VOID, Results)
    assert (stored["format"], found.format) == (2, RESULTS_FORMAT)
    assert len(found.samples) == len(stored["samples"])
    assert found.base.costs
    assert {key: len(row.rates) + len(row.changes) for key, row in enumerate((found.base, *found.variants))} == {
        0: 0,
        1: 0,
    }
    assert (found.choice.variant, found.choice.objective) == (None, stored["choice"]["objective"])
    [reason] = found.choice.reasons
    assert "`harness score RUN`" in reason
    assert recommend(found).missing == (reason,)


def test_bounds_of_format_3_are_dropped(tmp_path: Path) -> None:
    """If results of format 3 are read, losses are removed, since older rules bounded them; answers and costs stay."""
    whole, store = results(3, 6, confirm=0, failures=False), RunStore(tmp_path)
    store.write_results(whole, (), lambda: "")
    path = tmp_path / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"format": 3}), encoding="utf-8")
    found = store.results()
    assert all(variant.loss for variant in whole.variants)
    assert not any(variant.loss or variant.losses for variant in found.variants)
    assert (len(found.samples), found.base.costs) == (len(whole.samples), whole.base.costs)
    assert "`harness score RUN`" in found.choice.reasons[0]


def test_answers_of_random_weights_lose_their_scores(tmp_path: Path) -> None:
    """If results of format 2 are of a model with random weights, its answers have no score after the upgrade."""
    stored: dict[str, Any] = json.loads(VOID.read_text(encoding="utf-8"))
    stored["run"]["model"]["shape_only"] = True
    stored["choice"] |= {"variant": None, "reasons": ["The weights are random."]}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    found = read_record(path, Results)
    assert {sample.score.value for sample in (*found.samples, *found.confirmed_samples)} == {None}
    assert found.choice.reasons == ("The weights are random.",)


@pytest.mark.parametrize("old", [OLD, VOID])
def test_upgraded_results_are_written_in_the_newest_format(tmp_path: Path, old: Path) -> None:
    """If upgraded results are written in the newest format and read again, they stay the same."""
    store = RunStore(tmp_path)
    shutil.copy(old, tmp_path / "results.json")
    once = store.results()
    store.write_results(once, (), lambda: "")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["format"] == RESULTS_FORMAT
    assert store.results() == once


@pytest.mark.parametrize("samples", [5, [5], [{"answer": 5}], [{}]])
def test_damaged_samples_are_one_error(tmp_path: Path, samples: Any) -> None:
    """If a file of format 1 has invalid samples, it is reported as damaged, like a file of the newest format."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps(json.loads(OLD.read_text(encoding="utf-8")) | {"samples": samples}), encoding="utf-8")
    with pytest.raises(StoreError, match=r"is damaged: samples"):
        read_record(path, Results)
