"""Synthetic runs and their parsed report pages, for tests of reports."""

from __future__ import annotations

import csv
import io
from functools import cache
from pathlib import Path

from harness.analysis.regression import verdict
from harness.analysis.regression.baseline import baseline_of
from harness.analysis.regression.run_comparison import compare
from harness.core.measurement import Basis
from harness.core.regression import Decision, Policy
from harness.core.run_results import Results
from harness.report import render
from harness.storage.runs import RunStore
from tests.support.made_results import machine
from tests.support.parsed_html import Element, parse
from tests.support.run_pairs import SEEDS
from tests.support.synthetic_runs import results

LOST = {"learn 0": SEEDS, "learn 1": SEEDS, "learn 2": SEEDS}


def stored(made: Results, folder: Path) -> Path:
    """Store the results of a run in a new run directory."""
    folder.mkdir(parents=True)
    store = RunStore(folder)
    store.write_manifest(made.run)
    store.write_results(made, (), lambda: "")
    return folder


def decided(before: Results, after: Results) -> Decision:
    """Compare two runs by the rules of the gate."""
    return verdict.decide(compare(baseline_of(before, "before"), baseline_of(after, "after")), Policy(10))


def rows(text: str) -> list[dict[str, str]]:
    """Read the rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(text)))


@cache
def run_and_page(kind: str = "toy") -> tuple[Results, Element]:
    """Return a synthetic run and its parsed report.

    The run is of the toy model (`toy`), or of a real model on a T4 (`t4`) or on a larger GPU limited to a T4's memory
    (`emulated`).
    """
    kinds = {
        "toy": lambda: results(8, 18, seeds=(0, 1)),
        "t4": lambda: results(8, 18, toy=False, on=machine("cuda"), hostile=False),
        "emulated": lambda: results(8, 18, toy=False, on=machine("cuda", Basis.EMULATED), hostile=False),
    }
    made = kinds[kind]()
    return made, parse(render(made, now="2026-01-02 03:30 UTC"))


@cache
def sample_run(kind: str = "cpu") -> Results:
    """Return a synthetic run of 8 variants and 18 cases, of the toy model on a CPU or of a real model on a GPU."""
    return results(8, 18, seeds=(0, 1), hostile=False, toy=kind == "cpu", on=machine(kind))
