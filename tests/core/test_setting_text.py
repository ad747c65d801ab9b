"""Tests of settings as text, in the styles of variant names, plans, reports and CSV files."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.setting_text import in_csv, in_name, in_plan, in_report


@pytest.mark.parametrize(
    ("setting", "value", "name", "plan", "report", "csv"),
    [
        ("learning_rate", 2e-4, "lr=2e-4", "2e-4", "2e-4", 2e-4),
        ("learning_rate", 0.02, "lr=0.02", "0.02", "2e-2", 0.02),
        ("weight_decay", 0.001, "wd=1e-3", "1e-3", "0.001", 0.001),
        ("rank", 16, "r=16", "16", "16", 16),
        ("rslora", True, "rslora=yes", "True", "yes", "True"),
        ("target_modules", "all-linear", "all-linear", "all-linear", "all-linear", "all-linear"),
        ("target_modules", ("q_proj", "v_proj"), "qv", "qv", "q_proj, v_proj", "q_proj v_proj"),
        ("target_modules", ".*q_proj", "targets=.*q_proj", ".*q_proj", ".*q_proj", ".*q_proj"),
        ("lr_scheduler_kwargs", (), "options=none", "none", "none", ""),
        (
            "lr_scheduler_kwargs", (("min_lr", 1e-5), ("num_cycles", 2.0)), "min_lr=1e-5+num_cycles=2",
            "min_lr=1e-5 num_cycles=2", "min_lr=1e-5, num_cycles=2", "min_lr=1e-5 num_cycles=2",
        ),
        ("layers_to_transform", (1, 3), "layers=1+3", "1 3", "1, 3", "1 3"),
        ("layers_to_transform", (), "layers=all", "all", "all", ""),
        ("target_modules", ("q_proj", "k_proj"), "targets=q+k", "q_proj k_proj", "q_proj, k_proj", "q_proj k_proj"),
    ],
)  # fmt: skip
def test_each_style(setting: str, value: Any, name: str, plan: str, report: str, csv: object) -> None:
    """A value has one text in names of variants, one in plans, one in reports and one in CSV files."""
    assert in_name(setting, value) == name
    assert in_plan(setting, value) == plan
    assert in_report(setting, value) == report
    assert in_csv(value) == csv


def test_lists_and_tuples_of_modules_are_written_alike() -> None:
    """Target modules that were read from results.json, as a list, are written like the tuple of a new run."""
    assert in_report("target_modules", ["q_proj", "v_proj"]) == in_report("target_modules", ("q_proj", "v_proj"))
    assert in_csv(["q_proj", "v_proj"]) == in_csv(("q_proj", "v_proj"))
    assert in_report("lr_scheduler_kwargs", [["min_lr", 0.1]]) == in_report("lr_scheduler_kwargs", (("min_lr", 0.1),))
