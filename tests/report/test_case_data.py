"""Tests of the page's compressed data of all cases and answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.outside_text import visible
from harness.core.run_results import Results
from harness.report import case_data
from tests.support.case_records import record_of, records
from tests.support.report_runs import run_and_page
from tests.support.synthetic_runs import HOSTILE


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_text_is_made_visible(number: int) -> None:
    """If a prompt or answer contains control characters, the data holds all of it, with their names instead."""
    _, page = run_and_page()
    texts = record_of(page, f"hostile {number}").texts
    assert any(visible(HOSTILE[number]) in text for text in texts)
    assert visible(HOSTILE[number][:200]) in texts
    assert not any(sign in text for text in texts for sign in (case_data.RECORD, case_data.PART, "\0", "\x1b"))


def test_every_answer_is_in_the_data() -> None:
    """Every answer stands with its case, the variant and the seed that gave it, and its verdict."""
    made, page = run_and_page()
    numbers = {"base": 0, **{v.name: n for n, v in enumerate(made.variants, 1)}}
    for sample in (*made.samples, *made.confirmed_samples):
        record = record_of(page, sample.case)
        found = [
            answer
            for answer in record.answers
            for who, _, seeds in (by.partition(".") for by in answer["by"])
            if who == str(numbers[sample.variant]) and (not seeds or str(sample.seed) in seeds.split(","))
        ]
        assert [(record.texts[answer["text"]], answer["passed"]) for answer in found] == [
            (visible(sample.answer.text), sample.score.passed)
        ]


def test_answers_are_not_repeated() -> None:
    """If several variants gave the same answer to a case, it is in the data once, with all of them."""
    made, page = run_and_page()
    answers = record_of(page, "hostile 6").answers
    succeeded = {str(n) for n, v in enumerate(made.variants, 1) if v.rates}
    assert len(answers) == 2
    assert set(answers[1]["by"]) == succeeded


def test_a_failed_assertion_says_which_and_why() -> None:
    """If an answer fails, the failed assertion and the reason stand with it."""
    _, page = run_and_page()
    failed = [answer["failed"] for record in records(page) for answer in record.answers if answer["passed"] is False]
    assert failed
    assert all(assertion == "contains" and "does not contain" in reason for [[assertion, reason]] in failed)


def test_truncated_answers_are_marked() -> None:
    """Answers that were cut at the token limit are marked."""
    _, page = run_and_page()
    assert any(answer.get("cut") for record in records(page) for answer in record.answers)


def test_held_out_cases_come_last() -> None:
    """The cases used to choose a variant come first, then the held-out cases, which are marked."""
    made, page = run_and_page()
    held = [bool(record.head.get("held")) for record in records(page)]
    assert held == [
        case.split.value == "confirm" for case in sorted(made.run.suite.cases, key=lambda c: c.split.value == "confirm")
    ]


def test_the_data_of_one_run_is_the_same_each_time() -> None:
    """The compressed data depends on the results only, so that a page can be written again without a change."""
    made, _ = run_and_page()
    assert case_data.embedded(made) == case_data.embedded(made)


def test_changes_are_those_of_the_variants() -> None:
    """A case has one sign for each variant; without answers, it says that the case was not compared."""
    made, _ = run_and_page()

    def signs(results: Results) -> set[str]:
        return {sign for record in case_data.records(results) for sign in record.split('"changes":"')[1].split('"')[0]}

    assert {"=", "+", "-"} <= signs(made)
    assert signs(replace(made, samples=(), confirmed_samples=())) == {"?"}
