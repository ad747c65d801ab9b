"""Tests of the report as CSV files."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.core.measurement import Basis
from tests.support.report_runs import LOST, rows, stored
from tests.support.synthetic_runs import results


def test_tables_of_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`harness report --format csv` writes tables of the variants, the cases and the costs, with unrounded values."""
    made = results(8, 18, hostile=False, seeds=(0, 1))
    stored(made, Path("run"))
    assert main(["report", "run", "--format", "csv"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.name for path in paths] == ["variants.csv", "cases.csv", "costs.csv"]
    variants, cases, costs = (rows(path.read_text(encoding="utf-8")) for path in paths)
    assert [row["variant"] for row in variants] == ["base", *(v.name for v in made.variants)]
    first = made.variants[0]
    assert int(variants[1]["generalise_passed"]) == first.rates[made.choice.objective].passed
    assert float(variants[1]["generalise_low"]) <= float(variants[1]["generalise_rate"])
    assert [row["case"] for row in cases] == [c.id for c in made.run.suite.cases if c.split == "main"]
    assert {row["basis"] for row in costs} == {Basis.MEASURED.value}
    assert float(costs[0]["seconds"]) == made.base.costs[0].seconds.value


def test_tables_of_two_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If `harness report` compares two runs, the CSV files are in a folder that is named after the earlier run.

    The file flips.csv lists the lost cases.
    """
    assert main(["report", "first", "second", "--format", "csv"]) == 0
    assert capsys.readouterr().out.split()[0] == "second/against-first/changes.csv"
    flips = rows(Path("second/against-first/flips.csv").read_text(encoding="utf-8"))
    assert [row["case"] for row in flips] == list(LOST)
    assert main(["report", "first", "second", "--format", "md"]) == 0
    assert "regressed" in capsys.readouterr().out
