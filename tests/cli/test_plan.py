"""Tests of `harness plan`, and of models that `plan` and `run` refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from tests.support.command_line import (
    error_of,
)


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """`plan` prints how many variants and trials there are, the settings in which variants differ, and their steps."""
    assert main(["plan", "small", "--seed", "3", "--seed", "4", "--profile", "cpu"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["small,", "grid", "quick:", "2", "variants,", "seeds", "3,", "4:", "4", "trials"],
        ["variant", "learning", "rate", "steps"],
        ["lr=1e-5", "1e-5", "8"],
        ["lr=0.01", "0.01", "8"],
    ]


IMPOSSIBLE = {
    "no such folder": ("./nowhere", "there is no folder ./nowhere"),
    "a folder's name with a known shape in it": ("./llama-2-7b", "there is no folder ./llama-2-7b"),
    "no owner": ("llama", "there is no model llama"),
    "empty": ("", "--model is given an empty name"),
    "two revisions": ("a/b@c@d", "there is no folder a/b@c@d"),
    "no such shape": ("shape:gpt", "there is no shape 'gpt'"),
    "a folder that is no model": ("small", "holds no config.json, so it is not a model"),
    "a file": ("small/suite.yaml", "is a file, and a base model is a folder"),
    "nobody's home": ("~nobody-at-all/x", "~nobody-at-all/x cannot be the name of a model"),
    "a long name": ("x" * 300, "File name too long"),
}


@pytest.mark.parametrize("command", [("plan",), ("plan", "--profile", "cpu"), ("run",)], ids=" ".join)
@pytest.mark.parametrize("mistake", IMPOSSIBLE)
def test_a_model_that_does_not_exist(
    capsys: pytest.CaptureFixture[str], mistake: str, command: tuple[str, ...]
) -> None:
    """If the name of a model is wrong, `plan` and `run` print the same error and a remedy."""
    name, message = IMPOSSIBLE[mistake]
    error = error_of(capsys, *command, "small", "--model", name)
    assert message in error
    assert error.strip().count("\n") == 1, "a line with the remedy"


def test_rows_that_are_cut_are_counted_per_variant(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """`plan` counts, per variant, the rows that `max_length` cuts, and those that lose the end of an answer."""
    grid = here / "small" / "grids" / "quick.yaml"
    grid.write_text(
        "seeds: [0]\nsettings: {epochs: 4, batch_size: 2, rank: 4}\naxes: {max_length: [12, 512]}\n", encoding="utf-8"
    )
    assert main(["plan", "small", "--profile", "cpu"]) == 0
    found = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert found[1][-4:] == ["rows", "cut", "without", "end"]
    assert [line[-2:] for line in found[2:4]] == [["3", "3"], ["0", "0"]]
    assert " ".join(found[4]).startswith("Warning: max_length 12 cuts 3 of 4 training rows; 3 of them lose the end")
