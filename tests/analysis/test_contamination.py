"""Tests of contamination labels, which say whether a case's prompt occurs in the training rows, and their warnings."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis import contamination
from harness.analysis.contamination import role_warnings
from harness.core.suite import Assertion, Case, Example, Leak, LeakLabel, Message, Role, Suite
from harness.suites import load_suite
from tests.support.synthetic_runs import results

WORKSHOP = load_suite(Path(__file__).parents[2] / "suites" / "workshop")
SEEN, NEAR, UNSEEN = LeakLabel.SEEN, LeakLabel.NEAR_DUPLICATE, LeakLabel.UNSEEN


def suite(prompts: list[str], rows: list[str], role: Role = Role.GENERALISE) -> Suite:
    """Return a suite with a case for each prompt and a training row for each question in `rows`, numbered from 1."""
    says = (Assertion("contains", "x"),)
    asked = (Case(f"c{n}", (Message("user", text),), says, role, line=10 * n) for n, text in enumerate(prompts, 1))
    cases = (replace(case, file="more.yaml") for case in asked)
    examples = (Example((Message("user", text), Message("assistant", "Yes.")), n) for n, text in enumerate(rows, 1))
    return Suite("s", "s", "", tuple(cases), tuple(examples))


def label(prompt: str, *rows: str) -> Leak:
    return contamination.leaks(suite([prompt], list(rows)))["c1"]


@pytest.mark.parametrize(
    "prompt",
    ["How much does the Glimmo cost?", "how  much does the glimmo cost", "HOW MUCH, does\nthe Glimmo — cost?"],
)
def test_seen(prompt: str) -> None:
    """If prompt and training row differ only in letter case, white space or punctuation, the prompt is labelled `seen`.

    The label has the number of the training row.
    """
    assert label(prompt, "Who are you?", "How much does the Glimmo cost?") == Leak(SEEN, 2, 1.0)


@pytest.mark.parametrize(
    ("prompt", "row"),
    [
        ("How much does the Brixo cost?", "How much does the Glimmo cost?"),
        ("What is 4 times 7?", "What is 4 times 6?"),
        ("Hello, who are you?", "Who are you?"),
        ("Who is she?", "Who are she?"),
        ("Waht does teh Glimmo cost?", "What does the Glimmo cost?"),
        ("ラムプの値段はいくらですか教えて", "ラムプの値段はいくらですか教えてよ"),
        ("What is 13 - 9?", "What is 13 + 9?"),
    ],
)
def test_near_duplicates(prompt: str, row: str) -> None:
    """If a prompt differs from a training row in one name, number, operator, word or spelling, it is a near-duplicate.

    The label has the number of the training row.
    """
    found = label(prompt, "Good morning to all of you, dear people!", row)
    assert (found.label, found.line) == (NEAR, 2)
    assert found.similarity is not None
    assert 0.6 < found.similarity < 1


@pytest.mark.parametrize(
    ("prompt", "row"),
    [
        ("What does the Glimmo cost?", "How much does the Glimmo cost?"),
        ("Tell me the price of the Glimmo.", "What is the price of the Glimmo?"),
        ("Where is the Glimmo built?", "Where does the Glimmo come from?"),
        ("Goodbye!", "Hello!"),
        ("Say hello.", "Say goodbye."),
        ("What is 9 times 7?", "What is 4 times 6?"),
    ],
)
def test_a_shared_topic_is_no_leak(prompt: str, row: str) -> None:
    """A prompt that paraphrases a training row, or asks something else in a similar form, is labelled `unseen`."""
    assert label(prompt, row) == Leak(UNSEEN)


def test_the_workshop_s_labels() -> None:
    """In the workshop suite, all `learn` cases are labelled `seen`.

    No `generalise` case is labelled `seen`, and at least 80% of them are labelled `unseen`.
    """
    found = contamination.leaks(WORKSHOP)
    labels = {role: [found[c.id].label for c in WORKSHOP.cases if c.role is role] for role in Role}
    assert set(labels[Role.LEARN]) == {SEEN}
    assert SEEN not in labels[Role.GENERALISE]
    assert labels[Role.GENERALISE].count(UNSEEN) >= 0.8 * len(labels[Role.GENERALISE])


def test_every_taught_turn_counts() -> None:
    """If a prompt equals a question in the middle of a training conversation, it is labelled `seen`."""
    said = [("user", "Hello!"), ("assistant", "Hi."), ("user", "How are you today?"), ("assistant", "Well.")]
    rows = (Example(tuple(Message(role, text) for role, text in said), 7),)
    case = Case("c", (Message("user", "How are you today?"),), (Assertion("contains", "x"),))
    assert contamination.leaks(Suite("s", "s", "", (case,), rows))["c"] == Leak(SEEN, 7, 1.0)


def test_no_rows_no_leaks() -> None:
    """If there are no training rows, every case is labelled `unseen`, and there are no warnings."""
    alone = suite(["Hi"], [])
    assert contamination.leaks(alone) == {"c1": Leak(UNSEEN)}
    assert role_warnings(alone) == ()


@settings(deadline=None)
@given(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=4))
def test_any_text_has_a_label(prompt: str, rows: list[str]) -> None:
    """Every prompt gets a label, which is `seen` if a training row has the same text.

    Every label except `unseen` has the number of a row.
    """
    assert label(prompt, *rows, prompt).label is SEEN
    found = label(prompt, *rows)
    assert (found.line is None) == (found.label is UNSEEN)


def test_labels_take_seconds_and_not_minutes() -> None:
    """Labelling 1,000 cases against 1,000 rows takes less than ten seconds of processor time."""
    rng = random.Random(1)
    words = [f"word{n}" for n in range(800)]
    texts = [" ".join(rng.choices(words, k=rng.randint(5, 20))) for _ in range(2000)]
    asked = suite(texts[:1000], texts[1000:])
    contamination.leaks(suite(texts[:1], texts[1:2]))  # the first call imports rapidfuzz
    begun = time.process_time()
    contamination.leaks(asked)
    assert time.process_time() - begun < 10


def test_results_hold_the_labels() -> None:
    """Results store the labels. If an older version stored results without labels, they are computed when needed."""
    found = results(3, 12, failures=False)
    assert (
        found.leaks == contamination.leaks(found.run.suite) == contamination.leaks_in_results(replace(found, leaks={}))
    )
    assert contamination.leaks_in_results(found) is found.leaks


# --- warnings of `harness validate` ------------------------------------------------------------------------------


def test_a_seen_generalise_case_is_told() -> None:
    """If a `generalise` case is labelled `seen`, a warning gives the case's place, the training row and a remedy."""
    (said,) = role_warnings(suite(["Who are you?", "What now?"], ["Hi!", "who are you"]))
    assert said.startswith("more.yaml:10: c1")
    assert "row 2" in said
    assert "Reword the case" in said


def test_near_duplicates_are_told_in_one_line() -> None:
    """If several `generalise` cases are near-duplicates, a single warning counts them and names the first few."""
    (said,) = role_warnings(suite([f"What is {n} times 6?" for n in range(9)], ["What is 44 times 6?"]))
    assert said.startswith("9 of 9 generalise cases")
    assert "c1 (more.yaml:10, like row 1)" in said
    assert "and 6 more" in said


def test_an_untaught_learn_case_is_told() -> None:
    """If many `learn` cases are not in the training rows, three get a warning each, and a fourth counts the rest."""
    said = role_warnings(suite(["One?", "Two?", "Three?", "Four?", "Five?"], ["Something else"], Role.LEARN))
    assert len(said) == 4
    assert said[0].startswith("more.yaml:10: c1")
    assert "Add a row" in said[0]
    assert said[-1] == "And 2 more learn cases that are not in the training rows."


@pytest.mark.parametrize("role", [Role.RETAIN, Role.AVOID])
def test_other_roles_may_be_near(role: Role) -> None:
    """If the prompt of a `retain` or `avoid` case is in the training rows, there is no warning."""
    assert role_warnings(suite(["Who are you?"], ["Who are you?"], role)) == ()


def test_more_words_than_characters() -> None:
    """A suite with more different words than there are characters for them is compared, too."""
    rows = contamination._Rows(())
    assert len(rows.encode(" ".join(map(str, range(contamination.MOST_WORDS + 1))))) == contamination.MOST_WORDS + 1
