"""Tests of the checks of a suite's cases: references, answers of training rows, and prompts that pass by themselves."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from harness.analysis.case_checks import case_warnings
from harness.core.suite import Assertion, Case, Example, Message, Role, Suite

OTTAWA = "Which country has the capital Ottawa?"
CANADA = (Assertion("icontains", "Canada"),)


def case(prompt: str = OTTAWA, assertions: tuple[Assertion, ...] = CANADA, id: str = "c1", **fields: Any) -> Case:
    return Case(id, (Message("user", prompt),), assertions, Role.RETAIN, line=7, file="retain.yaml", **fields)


def suite(*cases: Case, rows: tuple[tuple[str, ...], ...] = ()) -> Suite:
    """Return a suite with these cases, and with training rows of alternating user and assistant messages."""
    examples = (
        Example(tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(row)), line)
        for line, row in enumerate(rows, 1)
    )
    return Suite("s", "s", "", cases, tuple(examples))


def test_a_failing_reference() -> None:
    """A reference that fails the case's assertions is reported with its place, the assertion and the remedy."""
    (said,) = case_warnings(suite(case(reference="It is France.")))
    assert said == (
        'retain.yaml:7: the reference of c1 fails its own assertions (icontains "Canada": does not contain "Canada"). '
        "Correct the reference or the assertions."
    )


def test_a_passing_reference() -> None:
    """A case whose reference passes, and a case without a reference, give no warning."""
    assert case_warnings(suite(case(reference="It is Canada."), case(id="c2"))) == ()


@pytest.mark.parametrize("role", Role)
def test_a_failing_training_answer(role: Role) -> None:
    """If a training row has a case's prompt, and its answer fails the case, the row is reported, whatever the role."""
    (said,) = case_warnings(suite(replace(case(), role=role), rows=(("Hi!", "Hello!"), (OTTAWA, "I do not know."))))
    assert said.startswith(
        "retain.yaml:7: the answer of training row 2 fails the case c1, which has the same prompt (icontai"
    )


@pytest.mark.parametrize(
    "row",
    [
        (OTTAWA, "It is Canada."),
        ("Which country has the capital Oslo?", "It is Norway."),
        ("Let us play a game.", "Yes!", OTTAWA, "I do not know."),
    ],
    ids=["passes", "another prompt", "another conversation"],
)
def test_training_answers_that_are_fine(row: tuple[str, ...]) -> None:
    """A training answer is not reported if it passes, or if its conversation differs from the case's."""
    assert case_warnings(suite(case(), rows=(row,))) == ()


def test_a_very_long_training_row() -> None:
    """A training row of 40,000 messages is checked in time: only its beginnings of the cases' lengths count."""
    began = time.process_time()
    assert case_warnings(suite(case(), rows=(("hi", "hello") * 20_000,))) == ()
    assert time.process_time() - began < 2


def test_system_messages_do_not_count() -> None:
    """A training row with a case's prompt is found if it has a system message that the case lacks."""
    row = Example((Message("system", "Be kind."), Message("user", OTTAWA), Message("assistant", "Hm.")), 4)
    (said,) = case_warnings(replace(suite(case()), examples=(row,)))
    assert "training row 4" in said


def test_a_prompt_that_passes() -> None:
    """If the prompt itself passes the case's assertions, the warning says that repeating the question passes."""
    told = case("Eva has a dog. Max has a goat. What does Max have?", (Assertion("icontains", "goat"),))
    (said,) = case_warnings(suite(told))
    assert said == (
        "retain.yaml:7: the prompt of c1 passes its own assertions, so an answer that repeats the question passes. "
        "Add an assertion that the question fails."
    )
    mended = replace(told, assertions=(*told.assertions, Assertion("icontains", "dog", negated=True)))
    assert case_warnings(suite(mended)) == ()


@pytest.mark.parametrize(
    "assertion",
    [
        Assertion("icontains", "Glimmo", negated=True),
        Assertion("assert-set", children=(Assertion("icontains", "Glimmo", negated=True),)),
    ],
    ids=["alone", "in a set"],
)
def test_absences_are_passed_by_most_texts(assertion: Assertion) -> None:
    """A case that only requires absences gives no warning, although its prompt passes."""
    assert case_warnings(suite(case(assertions=(assertion,)))) == ()


def test_a_part_of_the_question_can_pass() -> None:
    """The check does not find that a wrong answer passes because it repeats a part of the question.

    This is the limit that the module's docstring describes.
    """
    asked = case("What is the capital of Canada?", (Assertion("icontains", "Ottawa"),))
    assert case_warnings(suite(asked)) == ()
    assert case_warnings(suite(case(reference="The capital of Canada is New York."))) == ()


def test_what_needs_a_model_is_counted() -> None:
    """References that need log-probabilities are counted with the reason, and are not reported as failing."""
    asked = (Assertion("perplexity", threshold=5.0),)
    cases = [case(assertions=asked, id=f"c{n}", reference="Canada") for n in range(3)]
    (said,) = case_warnings(suite(*cases))
    assert said == (
        "3 references could not be checked: perplexity: needs an answer with its log-probabilities, and this is a text "
        "alone."
    )


def test_code_does_not_run() -> None:
    """Cases that the suite's own code judges, alone or in a set, are counted, and the code does not run."""
    own = Assertion("python", "judge.py:check")
    cases = (
        case(assertions=(own,), reference="x"),
        case(assertions=(Assertion("assert-set", children=(own,)),), id="c2"),
    )
    assert case_warnings(suite(*cases)) == (
        "2 cases could not be checked: judged by code or by a metric of the library evaluate.",
    )


def test_three_cases_are_named() -> None:
    """Of each kind, the first three cases are named, and the others are counted."""
    said = case_warnings(suite(*(case(id=f"c{n}", reference="France") for n in range(9))))
    assert len(said) == 4
    assert said[3] == "And 6 more cases whose reference fails."
