"""Tests of the first screen of a run's page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis import losses
from harness.analysis.next_trials import NextSteps, NextTrial, next_steps
from harness.core.run_results import Choice, Confirmation, Finding, Outcome, Results
from harness.core.suite import Role
from harness.core.training_outcome import Status
from harness.report import first_screen, render, render_handout
from harness.report.headline import chosen
from harness.report.kinds import KindCell, Kinds
from tests.support.parsed_html import parse
from tests.support.report_runs import run_and_page, sample_run


def first(results: Results) -> first_screen.FirstScreen:
    best = chosen(results)
    shown = best or next(v for v in results.variants if v.rates)
    return first_screen.first_screen(results, best, shown, next_steps(results))


def test_the_verdict_is_one_of_three_words() -> None:
    """The first sentence says whether the choice is confirmed, not confirmed or refuted, as its confirmation does."""
    whole = sample_run("cuda")
    for finding in Finding:
        choice = replace(whole.choice, confirmation=Confirmation(finding, ("Why.",)))
        found = first(replace(whole, choice=choice))
        assert found.verdict.lower().startswith(finding.value)
    untested = replace(whole, confirmed=None, confirmed_base=None, confirmed_samples=())
    assert first(untested).verdict.startswith("Not confirmed: no held-out cases have tested it")


def test_three_figures_say_what_was_learned_lost_and_paid() -> None:
    """The first screen has what was learned and lost on held-out cases, and time and memory with their basis."""
    learned, lost, costs = first(sample_run("cuda")).tiles
    assert (learned.title, lost.title, costs.title) == ("Learned", "Lost", "Costs")
    assert "held-out generalise cases pass; the base passes" in learned.says
    assert "the suite allows 40" in lost.says
    assert "measured on Tesla T4" in costs.says


KEPT, LOST = (KindCell(kept=4, lost=0, gained=0, cases=4), KindCell(kept=0, lost=4, gained=0, cases=4))


def kinds_by_split(results: Results, variant: Outcome, *, held_out: bool = False) -> Kinds:
    """Return kinds of which the held-out cases lose one, and the other cases another."""
    return {
        (Role.RETAIN, "read"): LOST if held_out else KEPT,
        (Role.RETAIN, "json"): KEPT if held_out else LOST,
        (Role.GENERALISE, "price"): KEPT,
        (Role.GENERALISE, "sign"): KindCell(0, 0, 1.5, 15) if held_out else KEPT,
    }


def test_kinds_are_of_the_cases_of_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kinds named as lost or little learned are counted on held-out cases if the figure is."""
    monkeypatch.setattr(first_screen, "of_variant", kinds_by_split)
    whole = sample_run("cuda")
    learned, lost, _ = first(whole).tiles
    assert "held-out" in lost.says
    assert lost.more[-1] == "Lost most: read (retain: 4 of 4 cases)."
    assert learned.more[-1] == "Learned least: sign (1.5 of 15)."
    learned, lost, _ = first(replace(whole, confirmed=None, confirmed_base=None, confirmed_samples=())).tiles
    assert lost.more[-1] == "Lost most: json (retain: 4 of 4 cases)."
    assert not any("Learned least" in sentence for sentence in learned.more)


def with_losses(results: Results, retain: float, avoid: float) -> Results:
    """Return the results with these held-out losses of each role alone."""
    again = results.confirmed
    assert again
    assert again.loss
    apart = {role: replace(again.loss, points=lost) for role, lost in ((Role.RETAIN, retain), (Role.AVOID, avoid))}
    return replace(results, confirmed=replace(again, losses=apart))


def test_each_role_alone_is_in_the_figure_of_the_loss() -> None:
    """The tile of the loss gives retain and avoid apart."""
    _, lost, _ = first(with_losses(sample_run("cuda"), -2.0, 27.1)).tiles
    assert "By role: retain 2 points gained, avoid 27.1 points." in lost.more


def test_the_verdict_names_a_role_that_loses_more_than_the_margin() -> None:
    """If one role alone loses more than the suite allows, a sentence below the verdict says which, and how much."""
    whole = sample_run("cuda")
    whole = replace(whole, choice=replace(whole.choice, confirmation=Confirmation(Finding.CONFIRMED, ("Why.",))))
    said = first(with_losses(whole, 5.0, 55.0)).alone
    assert "On the held-out avoid cases alone, it loses 55 points: more than the 40 that the suite allows" in said
    assert "retain cases alone" not in said
    assert first(with_losses(whole, 5.0, 39.0)).alone == ""
    refuted = replace(whole, choice=replace(whole.choice, confirmation=Confirmation(Finding.REFUTED, ("Why.",))))
    assert first(with_losses(refuted, 5.0, 55.0)).alone == ""


def test_the_words_of_the_figures_are_explained() -> None:
    """The first screen says what the roles, held-out cases and fresh seeds are, and the handout also the settings."""
    whole = sample_run("cuda")
    words = dict(first(whole).words)
    assert {"generalise", "retain", "avoid", "held-out", "fresh seeds"} <= set(words)
    unconfirmed = replace(whole, confirmed=None, confirmed_base=None, confirmed_samples=())
    assert "held-out" not in dict(first(unconfirmed).words)
    [paper] = parse(render_handout(whole, now="now")).all("p", class_="words")
    assert "points: percent of the cases that the base passes." in paper.text
    assert "learning rate: " in paper.text


def test_a_cpu_tells_nothing_about_a_gpu() -> None:
    """In a run on a CPU, the cost says that the run cannot tell what fits a T4."""
    *_, costs = first(sample_run()).tiles
    assert any("this run cannot tell whether it fits a T4" in sentence for sentence in costs.more)


def test_without_a_choice_the_first_screen_says_why() -> None:
    """If no variant was chosen, the first sentence is the reason, and the figures name the variant they are about."""
    none = replace(sample_run(), choice=Choice(None, ("Every variant loses too much.",)), confirmed=None)
    found = first(none)
    assert found.verdict == "Every variant loses too much."
    assert "which was not chosen" in found.shown
    assert found.settings == ()


def test_the_nearest_variant_differs_in_the_fewest_settings() -> None:
    """A trial is described by how it differs from the variant whose settings are nearest to its own."""
    whole = sample_run()
    settings = whole.variants[2].settings
    assert settings
    trial = NextTrial("more", replace(settings, rehearsal=20), "Try it.")
    near = first_screen.nearest(whole, trial)
    assert near
    assert near.name == whole.variants[2].name


def test_random_weights_say_what_fits() -> None:
    """The page of random weights says how many trainings fit, and has no answers, kinds or pass rates."""
    whole = sample_run("cuda")
    shape = replace(whole, run=replace(whole.run, model=replace(whole.run.model, shape_only=True)))
    known = [v for v in whole.variants if set(v.statuses) <= {Status.SUCCEEDED, Status.DIVERGED, Status.OUT_OF_MEMORY}]
    page = parse(render(shape, now="now"))
    fit = sum(Status.OUT_OF_MEMORY not in v.statuses for v in known)
    assert f"{fit} of {len(known)} trainings fit a T4." in page.id("answer").text
    assert page.id("fits").all("svg")
    for id in ("cases", "kinds-section", "learned-lost-section", "evidence", "trade-off-section"):
        assert not page.all(id=id), id


def test_random_weights_have_no_columns_of_quality() -> None:
    """The table of variants and the handout of random weights have settings and costs, but nothing on quality."""
    whole = sample_run("cuda")
    shape = replace(whole, run=replace(whole.run, model=replace(whole.run.model, shape_only=True)))
    page, paper = parse(render(shape, now="now")), parse(render_handout(shape, now="now"))
    heads = [head.text for head in page.id("variants-table").all("th", scope="col")]
    assert {"Rank", "Train", "Status"} <= set(heads)
    assert not {"Eligible", "Net loss", "Fixed"} & set(heads)
    assert not page.all("table", class_="effects") + page.all("table", class_="pairwise")
    assert "fit a T4" in paper.id("answer").text
    assert "random" in paper.id("limits").text
    assert paper.all("svg")


def test_a_gain_is_not_called_a_loss() -> None:
    """If more is gained than lost, the figure says `gained`; an interval without a limit is not written as one."""
    whole = sample_run()
    assert whole.confirmed
    assert whole.confirmed.loss
    gained = replace(whole, confirmed=replace(whole.confirmed, loss=replace(whole.confirmed.loss, points=-50.0)))
    assert first(gained).tiles[1].figure == "50 points gained"
    shown = replace(whole.confirmed.loss, low=None)
    assert losses.between(replace(shown, high=99.0)) == "up to 99 lost with 95% confidence"
    assert losses.between(replace(shown, high=100.0)) == "the cases cannot tell how much is really lost"


def test_the_first_screen_always_says_what_is_next() -> None:
    """If nothing is proposed, the first screen says so; if trials are missing, it says to finish the run first."""
    whole = sample_run()
    best = next(v for v in whole.variants if v.name == whole.choice.variant)
    [nothing] = first_screen.first_screen(whole, best, best, NextSteps()).next
    assert nothing.sentence.startswith("Nothing: ")
    waiting = replace(whole, variants=(replace(best, statuses=(Status.CANCELLED,) * len(best.seeds)),))
    [wait] = first_screen.first_screen(waiting, best, best, NextSteps()).next
    assert wait.sentence.startswith("Finish this run first")


def test_the_first_chart_is_gains_against_losses() -> None:
    """The first chart of a page has a link for each variant with answers, which leads to its row in the table."""
    made, page = run_and_page("t4")
    figure = page.all("figure")[0]
    assert figure.attributes["id"] == "learned-lost"
    links = {link.attributes["href"] for link in figure.all("svg")[0].all("a")}
    assert links == {f"#variant-{n}" for n, v in enumerate(made.variants, 1) if v.changes}
    assert all(page.all(id=(link or "")[1:]) for link in links)
