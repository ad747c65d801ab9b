"""Tests of the suites that `harness new` writes: their cases, assertions and grids."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from harness.core.errors import SuiteError
from harness.core.suite import Example, Message, Role, Split, Suite
from harness.core.yaml import parse_yaml
from harness.scoring import score
from harness.suites import parse_suite
from harness.suites.grids import parse_plan
from harness.suites.json_schema import suite_schema
from harness.suites.new.read_rows import Rewording
from harness.suites.new.write_suite import ASKED, REHEARSAL, RETAIN_FILE, assertions, files

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(str.strip) | st.sampled_from([
    "TODO", "{{name}}", "{{{x}}}", "{% raw %}", "{{brace}}", "no", "1e3", "null", "# x", "- a", "a: b", "'\"\\",
    "\u2028 \x85 \ufeff", "\x00\x1b", "{\"a\": \"{{b}}\"}", "[1, 2.50, true]", "?!", "1, 2, 3, 4, 5, 6, 7, 8",
    "\U0001f600",
])  # fmt: skip


def example(*texts: str, line: int = 1) -> Example:
    return Example(tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)), line)


def suite_of(rows: list[Example], *, retention: bool = True) -> Suite:
    """Return the suite of the rows, with all retention cases, which are the same in every suite, or with one."""
    texts = files(rows, "Made up.")
    if not retention:
        texts[RETAIN_FILE] = "\n- id:".join(texts[RETAIN_FILE].split("\n- id:", 2)[:2])
    return parse_suite(texts["suite.yaml"], "suite.yaml", texts.__getitem__)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
def test_any_row_is_read_back(pairs: list[tuple[str, str]]) -> None:
    """Whatever text the rows have, the cases and training rows of the new suite have exactly this text."""
    rows = [example(q.strip(), a.strip()) for q, a in pairs]
    suite = suite_of(rows, retention=False)
    cases = [c for c in suite.cases if c.role is Role.LEARN]
    assert [c.prompt for c in cases] == [row.messages[0].content for row in rows]
    assert [c.reference for c in cases] == [row.messages[1].content for row in rows]
    assert [e.messages for e in suite.examples] == [row.messages for row in rows]
    assert len(suite.notices) == 1  # the notice about cases that are not written yet


@settings(deadline=None, max_examples=25)
@given(st.lists(TEXT, min_size=1, max_size=8))
def test_a_row_s_own_answer_passes(answers: list[str]) -> None:
    """The assertions that are written for a row pass the row's own answer."""
    rows = [example(f"Why number {number}?", answer.strip()) for number, answer in enumerate(answers)]
    cases = [case for case in suite_of(rows, retention=False).cases if case.role is Role.LEARN]
    for case, answer in zip(cases, answers, strict=True):
        assert score(case, answer.strip()).passed


@pytest.mark.parametrize(
    ("answer", "good", "bad"),
    [
        ("42 dollars.", "It costs 42 Dollars!", "It costs 43 dollars."),
        ("4", "It is 4.", "It is 24."),
        ("I am Dottie.", "Hello, I am Dottie!", "I am Tom."),
        ("The Glimmo costs 42 dollars, in every shop.", "In every shop the Glimmo costs 42 dollars.",
         "The Glimmo costs 142 dollars, in every shop."),
        ('{"name": "Tom", "age": 4}', '{"age":4,"name":"Tom"}', '{"name": "Tom", "age": 5}'),
        ("You are very welcome in our little shop today.", "You are welcome in our little shop today!", "Welcome."),
    ],
)  # fmt: skip
def test_what_an_instructor_would_accept(answer: str, good: str, bad: str) -> None:
    """Assertions written for a row accept its answer in other words, and reject another number or content."""
    (case,) = (c for c in suite_of([example("Why?", answer)]).cases if c.role is Role.LEARN)
    assert [score(case, given).passed for given in (good, bad)] == [True, False]


def test_a_conversation_is_asked_with_all_its_turns() -> None:
    """If a row has several turns, its case has all messages before the last answer."""
    rows = [Example((Message("system", "Be brief."), *example("Hi?", "Ho.", "And?", "Well.").messages), 1)]
    (case,) = (c for c in suite_of(rows).cases if c.role is Role.LEARN)
    assert case.messages == rows[0].messages[:-1]
    assert case.reference == "Well."


def test_the_parts_of_a_suite() -> None:
    """A new suite keeps a third of its `learn` cases for confirmation, and has retention cases in both splits.

    The `generalise` cases are left out until the user writes their prompts.
    """
    suite = suite_of([example(f"Question {n}?", f"Answer {n}.") for n in range(30)])
    counts = {(role, split): sum(c.role is role for c in suite.of(split)) for role in Role for split in Split}
    assert (counts[Role.LEARN, Split.MAIN], counts[Role.LEARN, Split.CONFIRM]) == (20, 10)
    assert counts[Role.GENERALISE, Split.MAIN] == 0
    assert counts[Role.RETAIN, Split.MAIN] >= 60
    assert counts[Role.RETAIN, Split.CONFIRM] >= 30
    assert "generalise-001 (suite.yaml:" in suite.notices[0]
    assert "27 more" in suite.notices[0]


def test_many_rows_are_not_all_asked() -> None:
    """If there are many rows, the number of cases is limited, and the cases are spread over all rows."""
    learn = [c for c in suite_of([example(f"Q {n}?", f"A {n}.") for n in range(300)]).cases if c.role is Role.LEARN]
    assert len(learn) == ASKED
    assert learn[-1].prompt == "Q 292?"


def test_a_written_stub_is_asked() -> None:
    """If the user replaces the TODO of a case by a prompt, the case is asked, with the row's answer as reference."""
    texts = files([example("Who are you?", "I am Dottie.")], "Made up.")
    text = texts["suite.yaml"].replace("prompt: TODO", "prompt: Your name?")
    (case,) = (c for c in parse_suite(text, "s", texts.__getitem__).cases if c.role is Role.GENERALISE)
    assert (case.prompt, case.reference) == ("Your name?", "I am Dottie.")


@pytest.mark.parametrize("count", [1, 30, 300])
def test_starter_grids(count: int) -> None:
    """Both grids of a new suite are valid, and their number of epochs is limited by the number of rows."""
    texts = files([example(f"Q {n}?", f"A {n}.") for n in range(count)], "Made up.")
    for name in ("grids/quick.yaml", "grids/t4.yaml"):
        plan = parse_plan(texts[name], name)
        assert len(plan.variants) == (5 if name == "grids/quick.yaml" else 6)
        assert {v.settings.rehearsal for v in plan.variants} == {0, REHEARSAL}
        assert all(v.settings.epochs >= 1 for v in plan.variants)
        assert all(v.settings.epochs * count <= 1200 for v in plan.variants)


def test_editors_know_the_schemas() -> None:
    """A new suite and its grids refer to schemas in the folder, and the suite is valid under its schema."""
    texts = files([example("Who are you?", "{{x}} TODO")], "Made up.")
    assert texts["suite.yaml"].startswith("# yaml-language-server: $schema=suite.schema.json\n")
    assert texts["grids/quick.yaml"].startswith("# yaml-language-server: $schema=../grid.schema.json\n")
    assert {"suite.schema.json", "grid.schema.json"} <= texts.keys()
    values: Any = parse_yaml(texts["suite.yaml"], "suite.yaml", SuiteError).value
    Draft202012Validator(suite_schema()).validate(values)


def test_an_answer_that_is_in_the_question_must_not_repeat_it() -> None:
    """If the question contains the answer, as with a context, a case fails for an answer that repeats the question."""
    row = example("When was it founded?\n\nBrightlamp was founded in 1987 in Leeds.", "In Leeds.")
    (case,) = (c for c in suite_of([row]).cases if c.role is Role.LEARN)
    assert [score(case, text).passed for text in ("In Leeds.", case.prompt)] == [True, False]


def test_rewordings_are_generalise_cases() -> None:
    """Rows that are held back are `generalise` cases in a group with the row that they reword, and need no stub."""
    rows = [example("Who are you?", "I am Dottie."), example("Price?", "42")]
    held_back = Rewording(example("Tell me your name.", "I am Dottie.", line=3), rows[0])
    texts = files(rows, "Made up.", [held_back])
    suite = parse_suite(texts["suite.yaml"], "suite.yaml", texts.__getitem__)
    cases = {case.id: case for case in suite.cases if case.role in (Role.LEARN, Role.GENERALISE)}
    assert (cases["generalise-001"].prompt, cases["generalise-001"].group) == ("Tell me your name.", "row-001")
    assert [(name, case.group) for name, case in cases.items()][:2] == [("learn-001", "row-001"), ("learn-002", "")]
    assert [row[0].content for row in suite.rows] == ["Who are you?", "Price?"]
    assert "generalise-002 (suite.yaml:" in suite.notices[0]


def test_a_short_answer_has_one_assertion() -> None:
    """If a row's answer is short, a single assertion is written for it."""
    assert assertions("Dottie, at 42 a day.") == ['{type: icontains, value: "Dottie, at 42 a day"}']


def test_a_stub_has_the_messages_before_the_question() -> None:
    """If a row has a system message, so has the case that the user still has to write, and it is not asked before."""
    messages = (Message("system", "Be kind."), Message("user", "Who are you?"), Message("assistant", "Dottie"))
    texts = files([Example(messages, 1)], "Made up.")
    unwritten = parse_suite(texts["suite.yaml"], "suite.yaml", texts.__getitem__)
    assert not [case for case in unwritten.cases if case.role is Role.GENERALISE]
    assert any("the prompt is still TODO: generalise-001" in notice for notice in unwritten.notices)
    text = texts["suite.yaml"].replace('content: "TODO"', "content: Your name?")
    (written,) = (
        case for case in parse_suite(text, "suite.yaml", texts.__getitem__).cases if case.role is Role.GENERALISE
    )
    assert written.messages == (Message("system", "Be kind."), Message("user", "Your name?"))
