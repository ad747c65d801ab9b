"""Divergence rates of the variants, and the sentences that report them."""

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
    """A run of one variant with one seed per status. A seed that diverged stopped at step 17 of 30."""
    trials = [
        record(ONE, {}, seed=n, status=end, trained=training(end, 17 if end is Status.DIVERGED else 30))
        for n, end in enumerate(ends)
    ]
    asked = manifest(suite([case("it")]), [ONE, TWO], tuple(range(len(ends))), toy=toy)
    asked = replace(asked, plan=replace(asked.plan, about=about))
    return assemble(asked, [record(None, {"it": "bad"}), *trials], score, "now")


DIVERGED, FINE = Status.DIVERGED, Status.SUCCEEDED


def test_the_sentence() -> None:
    """The sentence gives diverged seeds, model and steps, and says that the studied model was not tested."""
    [found] = divergence_rates(run(DIVERGED, FINE, FINE, about="Llama-2"))
    assert found.sentence == "Pocket model, 30 steps: 1 of 3 seeds diverged. Llama-2: not tested."
    assert (found.variant, found.seeds, found.diverged, found.steps) == (ONE.name, 3, 1, 30)


def test_the_model_in_question_was_tested() -> None:
    """If the run used the model that the grid studies, the sentence adds nothing."""
    [found] = divergence_rates(run(FINE, FINE, toy=False, about="Llama-2"))
    assert found.sentence == "meta-llama/Llama-2-7b-chat-hf, 30 steps: 0 of 2 seeds diverged."


def test_what_did_not_end_is_not_counted() -> None:
    """The divergence rate excludes seeds that ran out of memory, failed or were cancelled."""
    [found] = divergence_rates(run(FINE, Status.OUT_OF_MEMORY, Status.FAILED, Status.CANCELLED))
    assert (found.seeds, found.diverged) == (1, 0)
    assert divergence_rates(run(Status.FAILED)) == ()


def test_the_summary_tells_it_where_it_matters() -> None:
    """The terminal shows it where a seed diverged or the grid asks about it, and else not."""
    assert "1 of 2 seeds diverged" in terminal.summary(run(DIVERGED, FINE))
    assert "0 of 2 seeds diverged. Llama-2: not tested." in terminal.summary(run(FINE, FINE, about="Llama-2"))
    assert "diverged" not in terminal.summary(run(FINE, FINE))


def test_the_page_tells_it_too() -> None:
    """The report's section on learning has a sentence on divergence for each variant."""
    page = report.render(run(FINE, FINE, about="Llama-2 <b>"), now="now")
    assert f"<li>{ONE.name}: Pocket model, 30 steps: 0 of 2 seeds diverged. Llama-2 &lt;b&gt;: not tested.</li>" in page
    assert "Did training break?" not in report.render(run(FINE, FINE), now="now")


def test_a_grid_says_whom_it_is_about() -> None:
    """The grid's `about` is one line of text and does not change the variants."""
    rows = "rows:\n  - {name: a, rank: 2}\n"
    assert parse_plan(f"about: Llama-2\n{rows}", "g.yaml").about == "Llama-2"
    assert parse_plan(f"about: Llama-2\n{rows}", "g.yaml").trials == parse_plan(rows, "g.yaml").trials
    with pytest.raises(GridError):
        parse_plan(f"about: [Llama-2]\n{rows}", "g.yaml")
