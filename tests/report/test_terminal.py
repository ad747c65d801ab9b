"""Tests of the summary of a run that is printed in the terminal."""

from __future__ import annotations

import re
from dataclasses import replace

from harness.analysis.next_trials import next_steps
from harness.core.run_results import Choice, Confirmation, Finding
from harness.core.settings import Settings
from harness.core.suite import Split
from harness.core.training_outcome import Status
from harness.report import terminal
from tests.support import tried_grids
from tests.support.synthetic_runs import results
from tests.support.tried_grids import Tried

SMALL = results(8, 18, seeds=(0, 1))


def test_summary_names_the_best_and_the_report() -> None:
    """The terminal summary names the best variant, and gives pass rates by role and the path of the report."""
    said = terminal.summary(SMALL, "reports/runs/x/report.html")
    assert f"Best in this demonstration: {SMALL.choice.variant}" in said
    assert "generalise" in said
    assert "confirmed tuned" in said
    assert said.endswith("Report: reports/runs/x/report.html")
    assert "Do not copy" in said


def test_the_summary_names_both_measures() -> None:
    """Above the changes, the terminal summary says of which cases their points are, and how losses differ from them."""
    said = terminal.summary(SMALL)
    assert "Change of the pass rate on held-out cases, in points of all cases (a loss is in points of what" in said
    assert "Change of the pass rate on the cases, in" in terminal.summary(replace(SMALL, confirmed=None))
    assert "Change of the pass rate" not in terminal.summary(replace(SMALL, choice=Choice(None, ("None.",))))


def test_summary_gives_reasons_against_the_best() -> None:
    """If the confirmation refuted the choice, or trials have no result, the terminal summary says so."""
    first = replace(SMALL.variants[0], statuses=(Status.CANCELLED,) * len(SMALL.variants[0].seeds))
    choice = replace(SMALL.choice, confirmation=Confirmation(Finding.REFUTED, ("It forgets.",)))
    said = terminal.summary(replace(SMALL, variants=(first, *SMALL.variants[1:]), choice=choice))
    assert "Refuted:\n  It forgets." in said
    assert "without a result" in said


def test_summary_without_a_choice_says_why() -> None:
    """If no variant was chosen, the terminal summary gives the reasons."""
    said = terminal.summary(replace(SMALL, choice=Choice(None, ("Nothing finished.",))))
    assert "No best variant" in said
    assert "Nothing finished." in said


def test_summary_names_constant_cases() -> None:
    """The terminal summary names cases with the same verdict for the base model and every variant."""
    first = SMALL.run.suite.of(Split.MAIN)[0].id
    samples = (replace(s, score=replace(s.score, passed=True)) if s.case == first else s for s in SMALL.samples)
    said = terminal.summary(replace(SMALL, samples=tuple(samples)))
    assert re.search(rf"Same verdict for the base model and every variant .* passed \({first}", said)


def test_summary_says_what_to_try_next() -> None:
    """The terminal summary lists the next trials and changes of the suite, with the command that writes a grid."""
    low, high = (Settings(rate).resolved() for rate in (1e-4, 1e-3))
    made = tried_grids.results(Tried(low, 20), Tried(high, 36, lost=20))
    said = terminal.summary(made, "reports/my runs/report.html")
    assert "What to try next (`harness next 'reports/my runs'` writes the trials as a grid):" in said
    assert all(f"  {trial.name}: {trial.reason}" in said for trial in next_steps(made).trials)
    assert "  In the suite: Hold out" in said


def test_summary_without_anything_to_try_is_silent() -> None:
    """If the results speak for nothing, the terminal summary does not mention next trials."""
    done = {"passed": 60, "lost": 0}
    made = tried_grids.results(Tried(Settings().resolved(), 40), held_out=60, again=done)
    assert "What to try next" not in terminal.summary(made, "report.html")


def test_the_note_of_a_small_model_is_printed() -> None:
    """The terminal summary ends with the note of a model that is no toy, before the path of the report."""
    real = results(2, 2, toy=False)
    noted = replace(real, run=replace(real.run, model=replace(real.run.model, note="A small model.")))
    assert terminal.summary(noted, "x").endswith("A small model.\nReport: x")
