"""Tests of `harness notebook`: from a suite, before any run, and from a run."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from harness.cli import main
from harness.storage.runs import RunStore


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("small",), "the grid quick has 2 variants, and a notebook trains one\nName it with --row: "),
        (("small", "lr=0.01"), "'lr=0.01' follows a suite. Name the variant of a grid with --row."),
        (("small", "--row", "nothing"), "there is no variant 'nothing'\nName one of: "),
        (("small", "--row", "lr=0.01", "--output", "n.txt"), "n.txt is no notebook"),
        (("small", "--row", "lr=0.01", "--model", "missing"), "there is no model missing"),
    ],
)
def test_mistakes_are_explained(
    words: tuple[str, ...], error: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that names no single variant, or no notebook or model, ends with exit code 2 and a remedy."""
    assert main(["notebook", *words]) == 2
    assert error in capsys.readouterr().err
    assert not list(here.glob("*.ipynb"))


def test_a_suite_without_training_rows_has_no_notebook(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A suite that cannot be trained is an error, as for `harness run`."""
    (here / "small" / "train.jsonl").unlink()
    assert main(["notebook", "small", "--row", "lr=0.01"]) == 2
    assert "the suite has no training rows" in capsys.readouterr().err


def test_a_suite_needs_no_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a suite, one file is written, in the current folder or where --output says, and its path is printed."""
    words = ["notebook", "small", "--row", "lr=0.01"]
    assert main([*words, "--seed", "7"]) == 0
    assert main([*words, "--output", "class/first.ipynb", "--quiet"]) == 0
    out, error = capsys.readouterr()
    assert out.split() == ["small-lr-0.01-seed7.ipynb", "class/first.ipynb"]
    assert error.count("Open it in Colab") == 1
    for name in out.split():
        nbformat.validate(nbformat.read(here / name, as_version=4))


def test_a_run_names_its_variant_and_has_its_own_grid(
    trained_run: RunStore, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a run with one variant, no name is needed. The options of a suite are refused, since they change nothing."""
    run = str(trained_run.root)
    assert main(["notebook", run]) == 0
    assert main(["notebook", run, "--model", "pocket"]) == 2
    assert main(["notebook", run, "lr", "--row", "other"]) == 2
    out, error = capsys.readouterr()
    assert (here / out.strip()).is_file()
    assert "--model changes nothing for a run, which has its own." in error
    assert f"--row is for a suite. Name the run's variant after it: harness notebook {run} other." in error
