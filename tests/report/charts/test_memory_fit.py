"""The chart of which trainings fit in memory."""

from __future__ import annotations

from dataclasses import replace

from harness.core.training import Status
from harness.report import render
from harness.report.charts import memory_fit
from tests.support.report_runs import sample_run


def test_the_boundary_has_a_cell_for_every_training() -> None:
    """Rank, length and batch of every training on a GPU stand beside what it reserved, or that it did not fit; one cell
    of several says the worst. Where all fitted, or no GPU ran, answers are shown and no boundary is."""
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


def test_two_trainings_of_one_cell_say_the_worst() -> None:
    """Of two trainings of one rank, length and batch the larger is shown, and that one did not fit before either."""
    whole = sample_run("cuda")
    small = next(v for v in whole.variants if Status.OUT_OF_MEMORY not in v.statuses and v.settings)
    assert small.settings
    tried = [memory_fit._Training(str(n), small.settings, size, False) for n, size in enumerate((3.0, 5.0))]
    assert list(memory_fit._cells(tried).values()) == [5.0]
    tried.insert(0, replace(tried[0], reserved=None))
    assert list(memory_fit._cells(tried).values()) == [None]


def test_random_weights_have_a_boundary_and_no_trade_off() -> None:
    """Of a model whose answers mean nothing, what fits is drawn and not what quality costs, even where all did."""
    whole = sample_run("cuda")
    sound = tuple(v for v in whole.variants if Status.OUT_OF_MEMORY not in v.statuses)
    model = replace(whole.run.model, shape_only=True)
    html = render(replace(whole, variants=sound, run=replace(whole.run, model=model)), now="now")
    assert "What fits" in html
    assert "Pass rate and cost" not in html
    assert "Pass rate and cost" in render(whole, now="now")
