"""Tests of the first section of a run's report."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.aggregate import assemble
from harness.analysis.recommendation import recommend
from harness.core.answers import Answer
from harness.core.run_results import Choice, Confirmation, Finding, Results
from harness.core.scores import Rate, Score
from harness.core.suite import Case, Role
from harness.core.training_outcome import Status
from harness.report import headline, render
from harness.report.pass_rates import scores_by_role
from tests.support.case_records import records
from tests.support.parsed_html import parse
from tests.support.report_runs import run_and_page
from tests.support.synthetic_runs import case, manifest, record, score, suite, variants

TOY = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."


def test_toy_banner_and_nothing_to_copy() -> None:
    """If a run is of the toy model, its report has a warning at the top, and no settings to copy."""
    made, page = run_and_page()
    assert page.all(class_="banner")[0].text == TOY
    assert f"Best in this demonstration {made.choice.variant}" in " ".join(page.id("answer").text.split())
    assert "Recommended" not in page.text.replace(page.all("script")[0].text, "")
    assert not [e for e in page.all() if "data-copy" in e.attributes]


def test_a_recommendation_names_what_was_tested() -> None:
    """A recommendation names what was tested (model, suite, cases and seeds), and its settings can be copied."""
    made, page = run_and_page("t4")
    advice = recommend(made)
    assert advice.headline.startswith(f"Recommended for {made.run.model.name}, workshop, ")
    assert advice.headline.removesuffix(f": {made.choice.variant}.") in page.id("answer").text
    assert page.all("button", **{"data-copy": "settings"})
    settings = next(v.settings for v in made.variants if v.name == made.choice.variant)
    assert settings
    assert page.id("settings").text == advice.script
    assert f"r={settings.rank}," in page.id("settings").text
    assert not page.all(class_="banner")


def test_confirmed_rates_come_first() -> None:
    """In the table of pass rates, the confirmed rates come first, and the caption gives their seeds."""
    made, page = run_and_page()
    assert made.confirmed
    [table] = page.id("evidence").all("table", class_="rates")
    row = next(r for r in table.all("tbody")[0].all("tr") if "generalise" in r.text)
    rate = next(v for k, v in made.confirmed.rates.items() if k == "generalise")
    assert f"{rate.passed}/{rate.total}" in row.all("td")[1].text
    assert "2 fresh seeds (100 and 101)" in table.text


def test_a_missing_confirmation_is_stated() -> None:
    """If there was no confirmation, the report says that the pass rates are not confirmed."""
    made, _ = run_and_page()
    page = parse(render(replace(made, confirmed=None, confirmed_base=None, confirmed_samples=()), now="now"))
    assert "Not confirmed" in page.id("answer").text


def test_a_refuted_choice_is_not_recommended() -> None:
    """If the confirmation refuted the choice, the report recommends nothing and gives the reasons."""
    made, _ = run_and_page("t4")
    page = parse(
        render(
            replace(made, choice=replace(made.choice, confirmation=Confirmation(Finding.REFUTED, ("It forgets.",)))),
            now="now",
        )
    )
    assert "It forgets." in page.id("evidence").all(class_="refuted")[0].text
    assert "Not recommended for" in page.id("answer").text
    assert "Recommended for" not in page.id("answer").text
    assert not [e for e in page.all() if "data-copy" in e.attributes]


def test_an_unfinished_run_is_provisional() -> None:
    """If a run is unfinished, its report says how many trials have no result."""
    made, page = run_and_page()
    assert not page.all(class_="waiting")
    variants = (replace(made.variants[0], statuses=(Status.CANCELLED,) * 2), *made.variants[1:])
    page = parse(render(replace(made, variants=variants), now="now"))
    assert "2 of 18 trials without a result" in page.all(class_="waiting")[0].text


def test_a_shown_variant_is_not_called_the_best_by_a_shared_rate() -> None:
    """Without a choice, the caption of the pass rates calls a variant the highest only if no other has its rate."""
    made, _ = run_and_page()
    objective = made.choice.objective
    nothing = replace(made, choice=replace(made.choice, variant=None), confirmed=None, confirmed_base=None)

    def caption(*passed: int, total: int = 9) -> str:
        some = zip(made.variants, passed, strict=False)
        found = [replace(v, rates=v.rates | {objective: Rate(count, total)}) for v, count in some]
        shown = replace(nothing, variants=tuple(found))
        return headline.headline(
            shown, headline.highest_pass_rate(shown), scores_by_role(shown, shown.samples)
        ).confirmation

    assert caption(2, 7, 3).endswith(
        f"Tuned: {made.variants[1].name}, which has the highest pass rate on generalise cases."
    )
    assert caption(2, 7, 7).endswith("the first of 2 variants that share the highest pass rate on generalise cases.")
    assert caption(0, 0, 0).endswith("the first with answers, since no variant passes any generalise case.")
    assert caption(0, 0, 0, total=0).endswith(
        "the first with answers, since no answer to a generalise case has a score."
    )


def test_no_choice_says_why() -> None:
    """If no variant was chosen, the report gives the reasons, and still shows every case."""
    made, _ = run_and_page()
    none = replace(made, choice=Choice(None, ("Every variant loses too much.",)), confirmed=None)
    page = parse(render(none, now="now"))
    assert "No best variant in this demonstration" in page.id("answer").text
    assert "Every variant loses too much." in page.id("answer").text
    assert len(records(page)) == len(made.run.suite.cases)


def unscored(case: Case, answer: Answer) -> Score:
    """Score an answer as the synthetic runs do, but give no score to the answer "unclear"."""
    return Score(case.id, False, None, error="unclear") if answer.text == "unclear" else score(case, answer)


def compared(cases: list[Case], base: dict[str, str], tuned: dict[str, str]) -> tuple[str, Results]:
    (variant,) = variants(1)
    records = [record(None, base), record(variant, tuned)]
    run = assemble(manifest(suite(cases), [variant]), records, unscored, "2026-01-02T03:24:05+00:00")
    return variant.name, run


def test_a_case_without_a_group_is_an_example_of_its_own() -> None:
    """Examples come from different groups; cases without a group keep their place before those of other roles."""
    cases = [case(f"c{n}", Role.GENERALISE, prompt=f"Question {n}?") for n in range(5)]
    cases = [replace(each, group="same") if n < 2 else each for n, each in enumerate(cases)]
    texts = {each.id: "good" for each in cases}
    name, run = compared(cases, dict.fromkeys(texts, "bad"), texts)
    assert [shown.prompt for shown in headline.excerpts(run, name)] == ["Question 0?", "Question 2?", "Question 3?"]


def test_an_answer_without_a_score_is_no_example() -> None:
    """An answer that could not be scored is shown neither as gained nor as lost."""
    cases = [case("a", Role.RETAIN), case("b", Role.GENERALISE), case("c", Role.GENERALISE, prompt="Gained?")]
    base = {"a": "good", "b": "unclear", "c": "bad"}
    name, run = compared(cases, base, {"a": "unclear", "b": "good", "c": "good"})
    assert [shown.prompt for shown in headline.excerpts(run, name)] == ["Gained?"]


def test_lost_examples_are_of_the_kind_that_loses_most() -> None:
    """Lost examples come from the kind that loses most, and those lost under most seeds come first."""
    names = ["retain-json-1", "retain-sum-1", "retain-sum-2", "retain-sum-3"]
    cases = [case(name, Role.RETAIN, prompt=name) for name in names]
    lost = {0: names[:2] + names[2:3], 1: names[2:3], 2: names[2:]}
    (variant,) = variants(1)
    good = dict.fromkeys(names, "good")
    records = [
        record(None, good),
        *(record(variant, good | dict.fromkeys(own, f"bad {seed}"), seed=seed) for seed, own in lost.items()),
    ]
    run = assemble(manifest(suite(cases), [variant], tuple(lost)), records, unscored, "2026-01-02T03:24:05+00:00")
    found = headline.excerpts(run, variant.name)
    assert [(each.prompt, each.seeds, each.tuned) for each in found] == [
        ("retain-sum-2", "lost in 3 of 3 seeds", "bad 0"),
        ("retain-sum-1", "lost in 1 of 3 seeds", "bad 0"),
    ]


def test_an_answer_that_gained_under_a_later_seed_is_shown() -> None:
    """The example's answer is that of the first seed that gained the case, not of the first seed."""
    (variant,) = variants(1)
    records = [
        record(None, {"a": "bad"}),
        record(variant, {"a": "bad still"}, seed=0),
        record(variant, {"a": "good now"}, seed=1),
    ]
    run = assemble(manifest(suite([case("a")]), [variant], (0, 1)), records, unscored, "2026-01-02T03:24:05+00:00")
    [found] = headline.excerpts(run, variant.name)
    assert (found.tuned, found.seeds) == ("good now", "gained in 1 of 2 seeds")
