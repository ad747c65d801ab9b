"""Tests of `harness notebook`: from a suite, before any run, and from a run."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from harness.cli import main
from harness.storage.runs import RunStore
from tests.support.small_suite import small_suite
from tests.support.trained_run import inside


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
    words: tuple[str, ...], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that names no single variant, or no notebook or model, ends with exit code 2 and a remedy."""
    small_suite(tmp_path)
    with inside(tmp_path):
        assert main(["notebook", *words]) == 2
    assert error in capsys.readouterr().err
    assert not list(tmp_path.glob("*.ipynb"))


def test_a_suite_needs_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a suite, one file is written, in the current folder or where --output says, and its path is printed."""
    small_suite(tmp_path)
    words = ["notebook", "small", "--row", "lr=0.01"]
    with inside(tmp_path):
        assert main([*words, "--seed", "7"]) == 0
        assert main([*words, "--output", "class/first.ipynb", "--quiet"]) == 0
    out, error = capsys.readouterr()
    assert out.split() == ["small-lr-0.01-seed7.ipynb", "class/first.ipynb"]
    assert error.count("Open it in Colab") == 1
    for name in out.split():
        nbformat.validate(nbformat.read(tmp_path / name, as_version=4))


def test_a_run_names_its_variant_and_has_its_own_grid(
    trained_run: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a run with one variant, no name is needed. The options of a suite are refused, since they change nothing."""
    run = str(trained_run.root)
    with inside(tmp_path):
        assert main(["notebook", run]) == 0
        assert main(["notebook", run, "--model", "pocket"]) == 2
    out, error = capsys.readouterr()
    assert (tmp_path / out.strip()).is_file()
    assert "--model changes nothing for a run, which has its own." in error
