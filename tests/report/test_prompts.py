"""Tests of the prompts section."""

from __future__ import annotations

import pytest

from harness.report.formatting import anchor, visible
from tests.support.report_runs import run_and_page
from tests.support.synthetic_runs import HOSTILE

TOY = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_text_shows_as_text(number: int) -> None:
    """Hostile prompts and answers are shown completely as text, with control characters by name."""
    _, page = run_and_page()
    card = page.id(f"case={anchor(f'hostile {number}')}")
    whole = "".join(e.text for e in card.all(class_="txt"))
    assert visible(HOSTILE[number]) in whole
    assert visible(HOSTILE[number][:200]) in whole


def test_long_answers_are_folded() -> None:
    """The page shows the start of a long answer; the rest is in a closed part of the page."""
    _, page = run_and_page()
    card = page.id(f"case={anchor('hostile 4')}")
    assert card.all("details", class_="rest")
    assert sum(e.text.count("x") for e in card.all(class_="txt")) >= 100_000


def test_every_answer_is_in_the_html() -> None:
    """Every answer is in the card of its case, or is marked as equal to the base model's answer."""
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
    """An answer that several variants gave is in its card once, with all their names."""
    made, page = run_and_page()
    card = page.id(f"case={anchor('hostile 6')}")
    texts = [e.text for e in card.all(class_="given")]
    assert len(texts) == 2
    succeeded = [v.name for v in made.variants if v.rates and v.name != made.choice.variant]
    assert all(name in texts[1] for name in succeeded)


def test_a_failed_assertion_says_which_and_why() -> None:
    """A failed answer names the failed assertion and the reason."""
    _, page = run_and_page()
    given = next(e for e in page.all(class_="given") if "✗ fail" in e.text and "Same" not in e.text)
    assert "contains" in given.text
    assert "does not contain" in given.text


def test_void_cases_and_truncated_answers_are_marked() -> None:
    """A void case has its reason, and an answer that was cut at the token limit is marked."""
    made, page = run_and_page()
    assert made.void
    for case, reason in made.void.items():
        assert reason in page.id(f"case={anchor(case)}").text
    assert "cut at the token limit" in page.id("prompts").text


def test_confirm_cases_stand_apart() -> None:
    """All held-out cases are in their own part of the section, and in no other."""
    made, page = run_and_page()
    part = page.id("confirm-cases")
    assert len(part.all("article")) == sum(c.split.value == "confirm" for c in made.run.suite.cases)
    assert not [
        e
        for e in page.id("main-cases").all("article")
        if e.attributes["id"] in {a.attributes["id"] for a in part.all("article")}
    ]
