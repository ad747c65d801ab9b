"""Tests of the report's section with all prompts and answers."""

from __future__ import annotations

import pytest

from harness.core.outside_text import visible
from harness.report.formatting import anchor
from tests.support.report_runs import run_and_page
from tests.support.synthetic_runs import HOSTILE

TOY = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_text_shows_as_text(number: int) -> None:
    """If a prompt or answer contains markup or control characters, the report shows all of it as text."""
    _, page = run_and_page()
    card = page.id(f"case={anchor(f'hostile {number}')}")
    whole = "".join(e.text for e in card.all(class_="txt"))
    assert visible(HOSTILE[number]) in whole
    assert visible(HOSTILE[number][:200]) in whole


def test_long_answers_are_folded() -> None:
    """If an answer is long, its beginning is shown, and the rest is folded, but is on the page."""
    _, page = run_and_page()
    card = page.id(f"case={anchor('hostile 4')}")
    assert card.all("details", class_="rest")
    assert sum(e.text.count("x") for e in card.all(class_="txt")) >= 100_000


def test_every_answer_is_in_the_html() -> None:
    """Every answer is shown with its case, or is marked as the same as the base model's answer."""
    made, page = run_and_page()
    cards = {e.attributes["id"]: e for e in page.all("article")}
    base = {s.case: s.answer.text for s in made.samples if s.variant == "base"}
    for sample in made.samples:
        card = cards[f"case={anchor(sample.case)}"]
        said = "".join(e.text for e in card.all(class_="txt"))
        assert visible(sample.answer.text) in said or (
            sample.answer.text == base[sample.case] and "Same answer" in card.text
        )


def test_answers_are_not_repeated() -> None:
    """If several variants gave the same answer to a case, it is shown once, with the names of these variants."""
    made, page = run_and_page()
    card = page.id(f"case={anchor('hostile 6')}")
    texts = [e.text for e in card.all(class_="given")]
    assert len(texts) == 2
    succeeded = [v.name for v in made.variants if v.rates and v.name != made.choice.variant]
    assert all(name in texts[1] for name in succeeded)


def test_a_failed_assertion_says_which_and_why() -> None:
    """If an answer fails, the failed assertion and the reason are shown with it."""
    _, page = run_and_page()
    given = next(e for e in page.all(class_="given") if "✗ fail" in e.text and "Same" not in e.text)
    assert "contains" in given.text
    assert "does not contain" in given.text


def test_truncated_answers_are_marked() -> None:
    """Answers that were cut at the token limit are marked."""
    _, page = run_and_page()
    assert "cut at the token limit" in page.id("prompts").text


def test_confirm_cases_stand_apart() -> None:
    """The confirmation cases are in a part of their own, and not among the main cases."""
    made, page = run_and_page()
    part = page.id("confirm-cases")
    assert len(part.all("article")) == sum(c.split.value == "confirm" for c in made.run.suite.cases)
    assert not [
        e
        for e in page.id("main-cases").all("article")
        if e.attributes["id"] in {a.attributes["id"] for a in part.all("article")}
    ]
