"""Tests that records written to files are read back unchanged, and that damaged files are reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.answers import Answer
from harness.core.errors import StoreError
from harness.core.run import TrialRecord
from harness.core.training_outcome import Status, Training
from harness.storage.records import read_record, write_record
from tests.support.stored_files import HARD, VARIANT, readable
from tests.support.synthetic_runs import (
    record,
    training,
)

REDO = "Restore the file, or delete it and run `harness run` again: it redoes only what is missing."


# --- round trips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_hostile_text_comes_back(tmp_path: Path, text: str) -> None:
    """Ids, messages and answers are read back unchanged, except that an unpaired surrogate becomes a question mark."""
    path = tmp_path / "record.json"
    made = record(VARIANT, {text: text}, message=text, trained=replace(training(), message=text))
    write_record(path, made, sealed=True)
    found = read_record(path, TrialRecord)
    clean = readable(text)
    assert found.answers == {clean: (Answer(readable(f"key-{text}"), clean, len(text) // 4, False),)}
    assert (found.message, found.training) == (clean, replace(training(), message=clean))
    assert replace(found, answers={}, message="", training=None) == replace(made, answers={}, message="", training=None)


@pytest.mark.parametrize("status", Status)
def test_a_training_comes_back(tmp_path: Path, status: Status) -> None:
    """The record of a training with any status is read back with all its steps, to the last digit of each loss."""
    made = replace(training(status), message=status.value)
    write_record(tmp_path / "training.json", made)
    assert read_record(tmp_path / "training.json", Training) == made


def test_losses_that_are_not_finite_come_back(tmp_path: Path) -> None:
    """Losses that are NaN, infinite or None, as in diverging trainings, are read back unchanged."""
    steps = [replace(training().steps[0], loss=loss, grad_norm=None) for loss in (float("inf"), float("nan"), None)]
    write_record(tmp_path / "training.json", replace(training(), steps=tuple(steps)))
    found = [step.loss for step in read_record(tmp_path / "training.json", Training).steps]
    assert str(found) == "[inf, nan, None]"


def test_a_sealed_record_that_was_changed_is_refused(tmp_path: Path) -> None:
    """If an answer in a sealed file is changed afterwards, reading it is an error that says so."""
    path = tmp_path / "record.json"
    write_record(path, record(VARIANT, {"case": "wrong"}), sealed=True)
    path.write_text(path.read_text(encoding="utf-8").replace("wrong", "right"), encoding="utf-8")
    with pytest.raises(StoreError, match="was changed after it was written") as error:
        read_record(path, TrialRecord)
    assert "delete it and run `harness run` again" in error.value.remedy


# --- damaged files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "Expecting value"),
        (b'{"format": 1, "trial": "a", "vari', "Unterminated string"),
        (b"<html>", "Expecting value"),
        (b"\xff\xfe{}", "codec can't decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 10_000, "integer string"),
        (b"[]", "does not hold a JSON object"),
        (b"{}", "has no format version"),
        (b'{"format": "new"}', "has no format version"),
        (b'{"format": 1}', "trial: Field required"),
        (b'{"format": 1, "trial": 5}', "trial: Input should be a valid string"),
    ],
)
def test_a_damaged_file_is_one_error(tmp_path: Path, content: bytes, what: str) -> None:
    """Whatever a damaged file contains, the error says which file, what is wrong, and what to do."""
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=what) as caught:
        read_record(path, TrialRecord)
    assert type(caught.value) is StoreError
    assert caught.value.message.startswith(f"{path} is damaged: ")
    assert caught.value.remedy == REDO


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    """A truncated record is reported as damaged, wherever it is cut."""
    path = tmp_path / "record.json"
    write_record(path, record(VARIANT, {"c": "answer"}))
    whole = path.read_bytes()
    for end in range(0, len(whole) - 2, 7):
        path.write_bytes(whole[:end])
        with pytest.raises(StoreError, match="is damaged"):
            read_record(path, TrialRecord)


@pytest.mark.parametrize("place", ["none.json", "none/record.json", "file/record.json"])
def test_a_file_that_is_not_there(tmp_path: Path, place: str) -> None:
    """The error for a missing file names the file and a remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=str(tmp_path)) as caught:
        read_record(tmp_path / place, TrialRecord)
    assert caught.value.remedy
