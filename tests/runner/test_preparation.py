"""Tests of what determines the digest of a run, which names its directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.engines import Engine
from harness.core.errors import SuiteError
from harness.core.hashing import digest
from harness.runner.preparation import _content, engine_notice, prepare
from harness.runner.request import Request
from tests.support.suite_texts import CASE, ROW, suite


def write(folder: Path, **texts: str) -> Request:
    (folder / "grids").mkdir(parents=True)
    (folder / "train.jsonl").write_text(ROW, encoding="utf-8")
    (folder / "grids" / "quick.yaml").write_text("axes: {rank: [4, 8]}", encoding="utf-8")
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return Request(suite=folder)


def test_places_do_not_change_a_run(tmp_path: Path) -> None:
    """If cases move into another file of the suite, or the suite into another folder, it is still the same run."""
    whole = prepare(write(tmp_path / "whole" / "pets", suite=f"tests:\n{CASE}\n"))
    apart = prepare(
        write(tmp_path / "apart" / "pets", suite="tests:\n- file://more.yaml\n", more=f"# more\n\n{CASE}\n")
    )
    assert whole.suite.cases[0].place != apart.suite.cases[0].place
    assert whole.digest == apart.digest


def test_runs_of_earlier_versions_are_found_again() -> None:
    """A suite has the digest that it had before cases knew their file, so that its earlier runs are resumed."""
    assert digest(_content(suite(f"tests:\n{CASE}\n", train_dot_jsonl=ROW))) == "2728c9e17e90a531"


def test_errors_name_the_file_of_the_suite(tmp_path: Path) -> None:
    """An error about a suite in a promptfooconfig.yaml names that file, and its name does not change the run."""
    request = write(tmp_path / "pets", suite=f"tests:\n{CASE}\n")
    usual = prepare(request)
    file = (tmp_path / "pets" / "suite.yaml").rename(tmp_path / "pets" / "promptfooconfig.yaml")
    assert prepare(Request(suite=file)).digest == usual.digest
    (tmp_path / "pets" / "train.jsonl").unlink()
    with pytest.raises(SuiteError, match=r"pets/promptfooconfig\.yaml: the suite has no training rows"):
        prepare(Request(suite=file))


def test_a_run_says_which_variants_the_fused_engine_leaves_to_the_other(tmp_path: Path) -> None:
    """With `--engine fused`, a notice names the variants that the reference engine trains, and why."""
    request = write(tmp_path / "pets", suite=f"tests:\n{CASE}\n")
    (tmp_path / "pets/grids/quick.yaml").write_text("rows: [{rank: 4}, {name: d, use_dora: true}]", encoding="utf-8")
    notice = engine_notice(prepare(replace(request, engine=Engine.FUSED)))
    assert notice == "The reference engine trains d, because the fused engine does not support use_dora."
    assert engine_notice(prepare(replace(request, engine=Engine.REFERENCE))) == ""
