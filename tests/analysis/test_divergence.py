"""Tests of the variants' divergence rates and of the sentences that report them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness import report
from harness.analysis.aggregate import assemble
from harness.analysis.divergence import divergence_rates
from harness.core.errors import GridError
from harness.core.run_results import Results
from harness.core.training_outcome import Status
from harness.report import terminal
from harness.suites.grids import parse_plan
from tests.support.synthetic_runs import case, manifest, record, score, suite, training, variants

ONE, TWO = variants(2)


def run(*ends: Status, toy: bool = True, about: str = "") -> Results:
    """Return the results of one variant, with a seed for each status. A diverged seed stopped at step 17 of 30."""
    trials = [
        record(ONE, {}, seed=n, status=end, trained=training(end, 17 if end is Status.DIVERGED else 30))
        for n, end in enumerate(ends)
    ]
    asked = manifest(suite([case("it")]), [ONE, TWO], tuple(range(len(ends))), toy=toy)
    asked = replace(asked, plan=replace(asked.plan, about=about))
    return assemble(asked, [record(None, {"it": "bad"}), *trials], score, "now")


DIVERGED, FINE = Status.DIVERGED, Status.SUCCEEDED


def test_the_sentence() -> None:
    """The sentence gives the model, the steps and the diverged seeds.

    If the grid asks about another model, the sentence adds that this model was not tested.
    """
    [found] = divergence_rates(run(DIVERGED, FINE, FINE, about="Llama-2"))
    assert found.sentence == "Pocket model, 30 steps: 1 of 3 seeds diverged. Llama-2: not tested."
    assert (found.variant, found.seeds, found.diverged, found.steps) == (ONE.name, 3, 1, 30)


def test_the_model_in_question_was_tested() -> None:
    """If the run trained the model that the grid asks about, the sentence does not say that a model was not tested."""
    [found] = divergence_rates(run(FINE, FINE, toy=False, about="Llama-2"))
    assert found.sentence == "meta-llama/Llama-2-7b-chat-hf, 30 steps: 0 of 2 seeds diverged."


def test_what_did_not_end_is_not_counted() -> None:
    """Seeds that ran out of memory, failed or were cancelled do not count in the divergence rate."""
    [found] = divergence_rates(run(FINE, Status.OUT_OF_MEMORY, Status.FAILED, Status.CANCELLED))
    assert (found.seeds, found.diverged) == (1, 0)
    assert divergence_rates(run(Status.FAILED)) == ()


def test_the_summary_tells_it_where_it_matters() -> None:
    """The terminal summary has the divergence rate only if a seed diverged or the grid names a model with `about`."""
    assert "1 of 2 seeds diverged" in terminal.summary(run(DIVERGED, FINE))
    assert "0 of 2 seeds diverged. Llama-2: not tested." in terminal.summary(run(FINE, FINE, about="Llama-2"))
    assert "diverged" not in terminal.summary(run(FINE, FINE))


def test_the_page_tells_it_too() -> None:
    """If the grid names a model with `about`, the report has a sentence on divergence for each variant."""
    page = report.render(run(FINE, FINE, about="Llama-2 <b>"), now="now")
    assert f"<li>{ONE.name}: Pocket model, 30 steps: 0 of 2 seeds diverged. Llama-2 &lt;b&gt;: not tested.</li>" in page
    assert "Did training break?" not in report.render(run(FINE, FINE), now="now")


def test_a_grid_says_whom_it_is_about() -> None:
    """A grid may name the model that it asks about, in a line of text: `about`. It does not change the variants."""
    rows = "rows:\n  - {name: a, rank: 2}\n"
    assert parse_plan(f"about: Llama-2\n{rows}", "g.yaml").about == "Llama-2"
    assert parse_plan(f"about: Llama-2\n{rows}", "g.yaml").trials == parse_plan(rows, "g.yaml").trials
    with pytest.raises(GridError):
        parse_plan(f"about: [Llama-2]\n{rows}", "g.yaml")
