"""Tests that files of older formats are read, and upgraded to the newest format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import StoreError
from harness.core.formats import FORMAT, RESULTS_FORMAT
from harness.core.run_results import Results
from harness.storage.records import read_record
from harness.storage.runs import RunStore

OLD = Path(__file__).parent / "results-format-1.json"
"""Some of the results of `harness run suites/workshop`, written in format 1."""


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


def test_upgraded_results_are_written_in_the_newest_format(tmp_path: Path) -> None:
    """If upgraded results are written in the newest format and read again, they stay the same."""
    store = RunStore(tmp_path)
    shutil.copy(OLD, tmp_path / "results.json")
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
