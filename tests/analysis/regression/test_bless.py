"""Tests of `harness bless`, which stores a finished run as a baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.core.training_outcome import Status
from harness.storage.baselines import read_baseline
from tests.support import run_pairs
from tests.support.run_pairs import stored


@pytest.mark.usefixtures("here")
def test_blessing_says_what_comes_next(capsys: pytest.CaptureFixture[str]) -> None:
    """`harness bless` prints only the baseline's path to stdout, and a working `harness gate` command to stderr."""
    capsys.readouterr()
    assert main(["bless", "first", "--name", "v1.2"]) == 0
    said = capsys.readouterr()
    assert said.out == "reports/baselines/v1.2.json\n"
    told = said.err.strip().partition("harness ")[2].replace("RUN", "first")
    assert told == "gate first --baseline v1.2"
    assert main(told.split()) == 0


def test_an_unfinished_run_is_not_blessed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If trials of a run have no result, the run cannot become a baseline, and the error names the first such trial."""
    results = run_pairs.results()
    half = replace(results.variants[0], statuses=(Status.SUCCEEDED, *[Status.CANCELLED] * 4))
    stored(replace(results, variants=(half,)), here / "half")
    assert main(["bless", "half"]) == 2
    assert "4 trials have no result, among them default, seed 1: cancelled" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../elsewhere", "a/b", "", ".hidden", "a b"])
def test_a_baseline_has_a_plain_name(here: Path, name: str) -> None:
    """A baseline's name with slashes, spaces or a leading dot is refused; an empty name is replaced by the default."""
    before = sorted(here.rglob("*"))
    assert main(["bless", "first", "--name", name]) == (0 if name == "" else 2)
    assert [path for path in sorted(here.rglob("*")) if path not in before] == (
        [here / "reports/baselines/workshop-quick-pocket.json"] if name == "" else []
    )


def test_a_variant_that_left_a_race_is_no_part_of_a_baseline(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run with a race becomes a baseline without the variants that stopped, and the gate asks for these by name."""
    results = run_pairs.results()
    other = replace(results.variants[0], name="other")
    left = replace(other, statuses=(Status.STOPPED,) * len(other.statuses))
    for name, second in (("whole", other), ("raced", left)):
        stored(replace(results, variants=(results.variants[0], second)), here / name)
        assert main(["bless", name, "--name", name]) == 0
    assert [row.name for row in read_baseline(here / "reports/baselines/raced.json").variants] == ["default"]
    capsys.readouterr()
    assert main(["gate", "raced", "--baseline", "whole"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "lacks variants of the baseline whole: other" in said
    assert "without `--race`" in said
