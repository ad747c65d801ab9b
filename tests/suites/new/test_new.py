"""Tests of `harness new`, which writes a complete suite into a new folder and warns if the suite is small."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.suites import load_suite
from harness.suites.grids import load_plan
from harness.suites.new import make

PAIR = "question,answer\nWho are you?,I am Dottie.\n"


def test_a_suite_is_written(tmp_path: Path) -> None:
    """The new folder has a suite and two grids that can be loaded, and no temporary file is left beside the folder."""
    (tmp_path / "rows.csv").write_text(PAIR, encoding="utf-8")
    made = make(tmp_path / "suites" / "mine", tmp_path / "rows.csv")
    assert load_suite(tmp_path / "suites" / "mine") == made.suite
    assert [load_plan(p).grid for p in sorted((tmp_path / "suites" / "mine" / "grids").iterdir())] == ["quick", "t4"]
    assert [p.name for p in (tmp_path / "suites").iterdir()] == ["mine"]


def test_a_small_suite_says_what_it_cannot_show(tmp_path: Path) -> None:
    """If the new suite is small, the output warns of it, gives the number of cases needed and the next command."""
    (tmp_path / "rows.csv").write_text(PAIR, encoding="utf-8")
    lines = str(make(tmp_path / "mine", tmp_path / "rows.csv")).splitlines()
    assert any(line.startswith("  1 training row teaches little") for line in lines)
    assert any("No generalise case is written" in line for line in lines)
    assert any("could distinguish 20 points" in line for line in lines)
    assert lines[-1] == f"Then: harness run {tmp_path / 'mine'}"


def test_cases_with_only_f1_are_reported(tmp_path: Path) -> None:
    """If a case is judged only by the share of common words (F1), the output warns that a wrong word can pass."""
    text = "question,answer\nOf what is it made?,It is made of the very best cork.\nPrice?,42 dollars.\n"
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    warnings = make(tmp_path / "mine", tmp_path / "rows.csv").warnings
    assert [line for line in warnings if line.startswith("1 case is judged only by the share of common words")]


def test_an_existing_folder_is_never_changed(tmp_path: Path) -> None:
    """If the folder for the suite already exists, even empty, `harness new` refuses it and writes nothing."""
    (tmp_path / "rows.csv").write_text(PAIR, encoding="utf-8")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        make(tmp_path / "mine", tmp_path / "rows.csv")
    assert not list((tmp_path / "mine").iterdir())


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """If the folder for the suite cannot be created, the error says so."""
    (tmp_path / "rows.csv").write_text(PAIR, encoding="utf-8")
    with pytest.raises(UsageError, match="cannot write"):
        make(tmp_path / "rows.csv" / "mine", tmp_path / "rows.csv")
