"""Scorers: every assertion by examples, with its twin; weights; what cannot be decided."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.records import Assertion, Case, Message
from harness.scorers import JUDGES, judge, score
from harness.suites.forms import VALUES


def case(*assertions: Assertion) -> Case:
    return Case("c", (Message("user", "p"),), assertions)


JSON = ['{"a": 1}', "[]", ' "x" ', "1e5", "null", "9" * 5000]
NO_JSON = ["{a: 1}", "", "Sure: {}", "NaN", "[1,]", "{} {}"]
EXAMPLES: list[tuple[str, Any, list[str], list[str]]] = [
    ("equals", "Paris", ["Paris", " Paris\n", "\tParis"], ["paris", "Paris.", "", "In Paris"]),
    ("equals", "Paris\n", ["Paris", "Paris\n"], ["Par is"]),
    ("equals", "", ["", "  \n"], ["x"]),
    ("contains", "40 dollars", ["It is 40 dollars.", "40 dollars", "x40 dollarsx"], ["40 Dollars", "40  dollars", ""]),
    ("icontains", "40 dollars", ["It is 40 DOLLARS.", "40 dollars", "40 Dollars"], ["40", "40\ndollars", ""]),
    ("icontains", "STRASSE", ["Straße 5", "strasse"], ["Strase", "", "s"]),
    ("contains-any", ["a", "b"], ["xa", "b", "ab"], ["A", "c", ""]),
    ("contains-all", ["a", "b"], ["ab", "b a", "xaxb"], ["a", "b", "AB"]),
    ("icontains-any", ["a", "b"], ["xA", "B", "ab"], ["x", "c", ""]),
    ("icontains-all", ["a", "b"], ["aB", "B A", "ab"], ["A", "b", ""]),
    ("starts-with", "No", ["No.", "  No", "Nobody"], ["no", "Yes. No.", ""]),
    ("regex", r"^\d+$", ["12", " 7 ", "0"], ["a1", "1 2", ""]),
    ("regex", r"(?i)\bblue\b", ["It is Blue.", "blue", "a BLUE b"], ["blues", "", "red"]),
    ("is-json", None, JSON, NO_JSON),
]


@pytest.mark.parametrize(("kind", "value", "passing", "failing"), EXAMPLES)
def test_an_assertion_holds_or_not(kind: str, value: Any, passing: list[str], failing: list[str]) -> None:
    """Every assertion passes and fails as its examples say, and its `not-` twin the other way round."""
    for answer in [*passing, *failing]:
        there, twin = score(case(Assertion(kind, value)), answer), score(case(Assertion(kind, value, True)), answer)
        assert there.passed is (answer in passing), answer
        assert twin.passed is not there.passed, answer
        assert (there.value, there.error) == (float(there.passed), "")
        assert there.checks[0].reason == twin.checks[0].reason


def test_every_type_that_can_be_written_can_be_scored() -> None:
    """Suites and scorers know the same assertion types, and each has examples."""
    assert set(VALUES) == set(JUDGES) == {kind for kind, *_ in EXAMPLES}


@pytest.mark.parametrize(
    ("kind", "value", "answer", "assertion", "reason"),
    [
        ("icontains", "40 dollars", "x", 'icontains "40 dollars"', 'does not contain "40 dollars"'),
        ("equals", "Paris", "Rome", 'equals "Paris"', 'is "Rome", not "Paris"'),
        ("contains-all", ["a", "b"], "b", 'contains-all "a", "b"', 'does not contain "a"'),
        ("contains-any", ["a", "b"], "c", 'contains-any "a", "b"', 'contains none of "a", "b"'),
        ("starts-with", "No", "Yes", 'starts-with "No"', 'does not start with "No"'),
        ("regex", "x+", "axx", 'regex "x+"', 'matches "x+" with "xx"'),
        ("is-json", None, "nope", "is-json", "is not JSON: Expecting value at character 1"),
    ],
)
def test_reasons_are_for_readers(kind: str, value: Any, answer: str, assertion: str, reason: str) -> None:
    """A check says in words what was found."""
    check = judge(Assertion(kind, value), answer)
    assert (check.assertion, check.reason) == (assertion, reason)


def test_reasons_are_short() -> None:
    """A long answer is cut in the reason."""
    assert len(judge(Assertion("equals", "x"), "y" * 10_000).reason) < 100


def test_weights_share_the_score() -> None:
    """The score is the weighted share of what holds; the case passes only when all does."""
    both = case(Assertion("contains", "a", weight=3), Assertion("contains", "b"))
    found = score(both, "a")
    assert (found.value, found.passed) == (0.75, False)
    assert [check.passed for check in found.checks] == [True, False]
    assert score(both, "ab").passed


def test_a_pattern_that_never_ends_is_an_error_of_its_case() -> None:
    """`(a+)+$` is given up within two seconds of processor time: no score, not failed, and the reason is said."""
    start = time.process_time()
    found = score(case(Assertion("contains", "a"), Assertion("regex", "(a+)+$")), "a" * 100_000 + "b")
    assert time.process_time() - start < 2
    assert (found.value, found.passed) == (None, False)
    assert "no verdict within 1 s" in found.error
    assert len(found.checks) == 1


def test_a_twin_does_not_pass_by_running_out_of_time() -> None:
    """An undecided pattern under `not-` is an error too."""
    assert score(case(Assertion("regex", "(a+)+$", negated=True)), "a" * 50_000 + "b").error


def test_an_unknown_assertion_is_an_error_of_its_case() -> None:
    """What a newer suite asks and this version cannot judge is said, and scores nothing."""
    found = score(case(Assertion("telepathy", "x")), "y")
    assert (found.value, found.error) == (None, 'telepathy "x": this version has no such assertion')


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, value, *_ in EXAMPLES])
@pytest.mark.parametrize(
    "answer", ["x" * 10**6, "[" * 10**6, "1" * 10**6, "\x00\ud800" * 1000], ids=["x", "[", "1", "\\"]
)
def test_hostile_answers_are_judged(kind: str, value: Any, answer: str) -> None:
    """A megabyte, nested or numeric or of broken characters, is judged within two seconds."""
    start = time.process_time()
    assert not score(case(Assertion(kind, value)), answer).error
    assert time.process_time() - start < 2


@settings(deadline=None)
@given(st.text(), st.text(min_size=1))
def test_folding_only_widens(answer: str, value: str) -> None:
    """Whatever contains a text contains it without regard to case, too."""
    if judge(Assertion("contains", value), answer).passed:
        assert judge(Assertion("icontains", value), answer).passed


@settings(deadline=None)
@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3))
def test_any_and_all_agree_with_contains(answer: str, values: list[str]) -> None:
    """`contains-any` and `contains-all` are any and all of `contains`."""
    each = [judge(Assertion("contains", value), answer).passed for value in values]
    assert judge(Assertion("contains-any", values), answer).passed is any(each)
    assert judge(Assertion("contains-all", values), answer).passed is all(each)
