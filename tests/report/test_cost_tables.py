"""Tests of the report's section on costs."""

from __future__ import annotations

from dataclasses import replace

from harness.core.measurement import Basis, PhaseCost
from harness.core.training_outcome import Together
from harness.report import cost_tables
from tests.support.report_runs import sample_run


def test_only_cuda_figures_are_compared_with_the_notebook() -> None:
    """The memory of a run is compared with that of the workshop's notebook only if the run was on a CUDA GPU.

    If the run is of the toy model, the report does not mention the notebook.
    """
    assert cost_tables.notebook(sample_run()) == ()
    beside = " ".join(cost_tables.notebook(sample_run("cuda")))
    assert "13.8 of 15.0 GB" in beside
    assert "published" in beside
    assert "measured on Tesla T4" in beside
    cpu = replace(sample_run("cuda"), run=replace(sample_run("cuda").run, provenance=sample_run().run.provenance))
    assert "cannot be compared with it" in " ".join(cost_tables.notebook(cpu))


def test_the_peak_of_a_run_includes_shared_passes() -> None:
    """If several trials were trained in one pass, the run's peak memory includes the peak of that pass."""
    whole = sample_run("cuda")
    first = whole.variants[0]
    spent = first.training[0].cost
    assert spent
    assert spent.peak_device
    most = replace(spent, peak_device=replace(spent.peak_device, value=13.9e9))
    trained = tuple(replace(training, together=Together("pass", 8, most)) for training in first.training)
    told = replace(whole, variants=(replace(first, training=trained), *whole.variants[1:]))
    assert "13.9 GB at most" in " ".join(cost_tables.notebook(told))
    assert "13.9 GB at most" not in " ".join(cost_tables.notebook(whole))


def test_shared_passes_are_listed_once() -> None:
    """If several trials were trained in one pass, the cost of the pass is listed once, not for each trial."""
    whole = sample_run()
    first = whole.variants[0]
    spent = first.training[0].cost
    assert spent
    assert cost_tables.passes(whole) == ()
    shared = Together("pass", 2, replace(spent, seconds=replace(spent.seconds, value=40.0)))
    trained = tuple(replace(training, together=shared) for training in first.training)
    told = replace(whole, variants=(replace(first, training=trained), *whole.variants[1:]))
    [line] = cost_tables.passes(told)
    assert line.startswith("2 trials together in 40 s")
    assert "measured on Example CPU" in line


def test_computed_memory_is_marked() -> None:
    """A peak on the device that was computed, because the driver did not report it, is marked in both tables."""
    whole = sample_run("cuda")
    measured = [cell.text for row in cost_tables.phases(whole) for cell in row]
    costs = [tuple(_computed(cost) for cost in variant.costs) for variant in whole.variants]
    variants = tuple(replace(v, costs=own) for v, own in zip(whole.variants, costs, strict=True))
    told = replace(whole, variants=variants, base=replace(whole.base, costs=()))
    assert not [text for text in measured if text.startswith("≈")]
    assert [cell.text for row in cost_tables.phases(told) for cell in row if cell.text.startswith("≈")]
    rows = [row for row in cost_tables.by_variant(told) if row.name == whole.variants[0].name]
    assert rows
    assert all(any(cell.text.startswith("≈") for cell in row.cells) for row in rows)


def _computed(cost: PhaseCost) -> PhaseCost:
    return replace(cost, peak_device=cost.peak_reserved and replace(cost.peak_reserved, basis=Basis.PREDICTED))
