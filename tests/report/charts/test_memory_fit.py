"""Tests of the chart of which trainings fit in memory."""

from __future__ import annotations

from dataclasses import replace

from harness.core.training_outcome import Status
from harness.report import render
from harness.report.charts import memory_fit
from tests.support.report_runs import sample_run


def test_the_chart_has_a_cell_for_every_training() -> None:
    """If a training on a GPU ran out of memory, the chart gives the memory of every training or marks it as too large.

    If none ran out of memory, or the run was on a CPU, there is no chart.
    """
    whole = sample_run("cuda")
    drawn = memory_fit.memory_fit(whole)
    assert drawn
    told = {row[-1]: row[5] for row in drawn.table.rows}
    short = {v.name for v in whole.variants if Status.OUT_OF_MEMORY in v.statuses}
    assert short
    assert {name for name, size in told.items() if size == "out of memory"} == short
    assert all(float(size) > 0 for name, size in told.items() if name not in short)
    assert str(drawn.svg).count(memory_fit.NONE) == str(drawn.narrow).count(memory_fit.NONE) == len(short)
    fitted = replace(whole, variants=tuple(v for v in whole.variants if v.name not in short))
    assert memory_fit.memory_fit(fitted) is None
    assert memory_fit.memory_fit(sample_run()) is None


def test_a_shared_cell_shows_the_largest_memory() -> None:
    """If two trainings share a cell, the cell shows the larger memory, or that one of them ran out of memory."""
    whole = sample_run("cuda")
    small = next(v for v in whole.variants if Status.OUT_OF_MEMORY not in v.statuses and v.settings)
    assert small.settings
    tried = [memory_fit._Training(str(n), small.settings, size, False) for n, size in enumerate((3.0, 5.0))]
    assert list(memory_fit._cells(tried).values()) == [5.0]
    tried.insert(0, replace(tried[0], reserved=None))
    assert list(memory_fit._cells(tried).values()) == [None]


def test_random_weights_have_no_trade_off() -> None:
    """If the model's weights are random, the report has the memory chart, but no charts of pass rate and cost."""
    whole = sample_run("cuda")
    sound = tuple(v for v in whole.variants if Status.OUT_OF_MEMORY not in v.statuses)
    model = replace(whole.run.model, shape_only=True)
    html = render(replace(whole, variants=sound, run=replace(whole.run, model=model)), now="now")
    assert "What fits" in html
    assert "Pass rate and cost" not in html
    assert "Pass rate and cost" in render(whole, now="now")
