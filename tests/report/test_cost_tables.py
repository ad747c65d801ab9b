"""Tests of the report's section on costs."""

from __future__ import annotations

from dataclasses import replace

from harness.core.costs import mean, pool
from harness.core.measurement import Basis, Phase, PhaseCost
from harness.core.rehearsal import Rehearsal, RehearsalAnswers
from harness.core.rehearsal_answers import LeftOut
from harness.core.run_results import Outcome, Results
from harness.core.settings import Quantization
from harness.core.training_outcome import Status, Together
from harness.core.wording import duration
from harness.report import cost_tables, render
from tests.support.made_results import cost
from tests.support.parsed_html import parse
from tests.support.report_runs import sample_run


def trained_together(seconds: float = 40.0, alone: float = 30.0) -> Results:
    """Return a run whose two variants were trained in one pass, with costs that were estimated from one probe.

    The last seed of the first variant was cancelled.
    """
    whole = sample_run()
    made = whole.variants[0].training[0]
    assert made.cost
    shared = Together("pass", 3, replace(made.cost, seconds=replace(made.cost.seconds, value=seconds)))
    estimate = replace(made.cost, seconds=replace(made.cost.seconds, value=alone), probes=1, probe_steps=4)
    one = replace(made, cost=estimate, together=shared)

    def variant(outcome: Outcome, seeds: int) -> Outcome:
        answers = [replace(cost, models=13) for cost in outcome.costs if cost.phase is not Phase.TRAIN]
        statuses = (*(Status.SUCCEEDED,) * seeds, *(Status.CANCELLED,) * (2 - seeds))
        costs = (pool([estimate] * seeds, mean), *answers)
        return replace(outcome, training=(one,) * seeds, statuses=statuses, costs=costs)

    some = (variant(whole.variants[0], 1), variant(whole.variants[1], 2))
    return replace(whole, variants=some, confirmed=None, confirmed_base=None, confirmed_samples=())


def test_phases_show_what_the_run_took() -> None:
    """In the time by phase, a shared pass counts once, and cancelled seeds and estimates do not count."""
    texts = {row[0].text: row[1].text for row in cost_tables.phases(trained_together())}
    assert texts["Train"] == "40 s"
    assert texts["Tuned model answers"] == "27 s"  # 9 s for each of three seeds that answered


def test_trainings_that_ran_alone_are_added() -> None:
    """In the time by phase, trainings that ran alone are added, including those of the confirmation."""
    whole = sample_run()
    rows = [row for row in (*whole.variants, whole.confirmed) if row]
    spent = sum(training.cost.seconds.value for row in rows for training in row.training if training.cost)
    texts = {row[0].text: row[1].text for row in cost_tables.phases(whole)}
    assert texts["Train"] == duration(spent)


def test_an_estimate_names_its_probe() -> None:
    """A cost that was estimated from one probe names the probe and its steps, however many seeds share it."""
    page = parse(render(trained_together(), now="now"))
    [row] = [r for r in page.id("variants").all("tbody")[0].all("tr") if sample_run().variants[1].name in r.text]
    assert row.text.count("one probe of 4 steps") == 2  # time and peak of the training
    assert "estimated for training alone from one probe of 4 steps (measured on Example CPU" in page.id("cost").text
    assert "estimates for training each variant alone" in page.id("cost").text
    assert "estimates for training each variant alone" not in parse(render(sample_run(), now="now")).id("cost").text


def test_the_peak_of_a_batch_is_named_as_the_batchs() -> None:
    """If several models answered in one batch, the peak memory beside each of them is named as that of the batch."""
    page = parse(render(trained_together(), now="now"))
    [row] = [r for r in page.id("variants").all("tbody")[0].all("tr") if sample_run().variants[1].name in r.text]
    assert "900 MiB batch of 13 models" in " ".join(row.text.split())
    assert "share of batch of 13 models" in row.text
    assert "900 MiB batch of 13 models" in page.id("cost").text


def test_only_cuda_figures_are_compared_with_the_notebook() -> None:
    """The memory of a run is compared with that of the workshop's notebook only if the run was on a CUDA GPU."""
    beside = " ".join(cost_tables.notebook(sample_run("cuda")))
    assert "13.8 of 15.0 GB" in beside
    assert "published" in beside
    assert "measured on Tesla T4" in beside
    cpu = replace(sample_run("cuda"), run=replace(sample_run("cuda").run, provenance=sample_run().run.provenance))
    assert "cannot be compared with it" in " ".join(cost_tables.notebook(cpu))


def test_only_the_notebooks_model_is_compared_with_it() -> None:
    """The figure of the workshop's notebook, which is of a 7B model, does not stand beside a run of another model."""
    assert cost_tables.notebook(sample_run()) == ()
    large = sample_run("cuda")
    small = replace(large, run=replace(large.run, model=replace(large.run.model, name="SmolLM2-135M-Instruct")))
    assert cost_tables.notebook(large)
    assert cost_tables.notebook(small) == ()
    shape = replace(large, run=replace(large.run, model=replace(large.run.model, name="shape:llama-2-7b")))
    assert cost_tables.notebook(shape)


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


def rehearsed() -> Results:
    """Return a run whose base model answered rehearsal prompts in 12 s, after 3 s of loading."""
    whole = sample_run()
    costs = (cost(Phase.LOAD, 3.0), cost(Phase.REHEARSE, 12.0))
    answers = RehearsalAnswers(Quantization.NF4, (), {LeftOut.CUT: 7}, costs)
    return replace(whole, run=replace(whole.run, rehearsal=Rehearsal(("Why?",), 2, (answers,))))


def test_rehearsal_answers_are_a_phase_of_the_run() -> None:
    """The time of the rehearsal answers is one row of the phases, and rows of its own in the table by variant."""
    found = rehearsed()
    texts = {row[0].text: row[1].text for row in cost_tables.phases(found)}
    assert texts["Base model answers rehearsal prompts"] == "12 s"
    rows = [row for row in cost_tables.by_variant(found) if row.name == "rehearsal"]
    assert [row.cells[0].text for row in rows] == ["Load the base model", "Base model answers rehearsal prompts"]
    assert "Base model answers rehearsal prompts" not in {row[0].text for row in cost_tables.phases(sample_run())}


def test_the_page_says_how_many_answers_were_kept() -> None:
    """The page says how many rehearsal prompts the base model answered, and why answers are no rows."""
    text = parse(render(rehearsed(), now="")).text
    assert "7 did not end within 96 tokens" in text
    assert "2 prompts not asked, in or near a case or training row" in text
