"""Tests that answers are scored by the assertions of their case."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.scores import Check
from harness.core.suite import Assertion, Case, Message
from harness.scoring import ASSERTION_TYPES, Evidence, judge, score
from harness.scoring.assertion_types.external import TYPES as EXTERNAL
from harness.scoring.assertion_types.javascript import TYPES as JAVASCRIPT
from harness.scoring.assertion_types.log_probabilities import TYPES as BY_LOG_PROBABILITIES
from harness.scoring.assertion_types.model_graded import TYPES as JUDGED
from harness.scoring.assertion_types.sets import SET
from harness.suites import parse_suite

ELSEWHERE = {SET, "similar", "similar:cosine"}
ELSEWHERE |= {row.name for row in (*EXTERNAL, *BY_LOG_PROBABILITIES, *JAVASCRIPT, *JUDGED)}
BY_TEXT = sorted(ASSERTION_TYPES.keys() - ELSEWHERE)
"""Assertion types that are judged by the answer's text alone."""


def case(*assertions: Assertion, threshold: float | None = None) -> Case:
    return Case("c", (Message("user", "p"),), assertions, threshold=threshold)


def check(assertion: Assertion, answer: str) -> Check:
    return judge(assertion, Evidence(answer.strip(), case(assertion)))


PERSON = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "age": {"minimum": 0}},
          "additionalProperties": False}  # fmt: skip
SHORT = {"type": "array", "maxItems": 2, "uniqueItems": True, "items": {"pattern": "^[a-z]+$"}}
SPAN = {"min": 2, "max": 3}
EXAMPLES: list[tuple[str, Any, float | None, list[str], list[str]]] = [
    ("equals", "Paris", None, ["Paris", " Paris\n", "\tParis"], ["paris", "Paris.", "", "In Paris"]),
    ("equals", "Paris\n", None, ["Paris", "Paris\n"], ["Par is"]),
    ("equals", "", None, ["", "  \n"], ["x"]),
    ("equals", {"a": [1, None], "b": "x"}, None,
     ['{"b": "x", "a": [1, null]}', '{"a":[1.0,null],"b":"x"}', ' {"a": [1e0, null], "b": "x"} '],
     ['{"a": [true, null], "b": "x"}', '{"a": [1], "b": "x"}', '{"a": [1, null]}', "{}", "[]", "a", "", "[" * 5000]),
    ("equals", [1, "a"], None, ['[1, "a"]', '[1.0,"a"]'], ['["a", 1]', "[1]", '{"0": 1}', '[true, "a"]']),
    ("contains", "40 dollars", None,
     ["It is 40 dollars.", "40 dollars", "x40 dollarsx", "\n40 dollars\n", "40 dollars, 40 dollars", "140 dollars"],
     ["40 Dollars", "40  dollars", "", "40dollars", "40\ndollars", "dollars 40"]),
    ("icontains", "40 dollars", None, ["It is 40 DOLLARS.", "40 dollars", "40 Dollars", "x40 dOLLARSx"],
     ["40", "40\ndollars", "", "4O dollars"]),
    ("icontains", "STRASSE", None, ["Straße 5", "strasse"], ["Strase", "", "s"]),
    ("contains-any", ["a", "b"], None, ["xa", "b", "ab", "xyzb", "\na", "b b"], ["A", "c", "", "B", "x y", "ä"]),
    ("contains-all", ["a", "b"], None, ["ab", "b a", "xaxb", "a\nb", "bxxxa", "aabb"],
     ["a", "b", "AB", "", "aB", "xyz"]),
    ("icontains-any", ["a", "Bé"], None, ["xA", "BÉ", "ab", "bé", "xyza", "A A"], ["x", "c", "", "be", "b", "é b"]),
    ("icontains-all", ["a", "b"], None, ["aB", "B A", "ab", "AB", "b\nA", "xAxBx"], ["A", "b", "", "BB", "xyz", "äb"]),
    ("starts-with", "No", None, ["No.", "  No", "Nobody", "No", "\nNo, thanks", "No No"],
     ["no", "Yes. No.", "", "N", "nO", "\"No\""]),
    ("ends-with", "friend!", None, ["Hi, friend!", "friend!", "friend!  ", "my\nfriend!\n", "!friend!", "(friend!"],
     ["friend", "Friend!", "friend!.", "", "friend! Bye", "\"friend!\""]),
    ("regex", r"^\d+$", None, ["12", " 7 ", "0"], ["a1", "1 2", ""]),
    ("regex", r"(?i)\bblue\b", None, ["It is Blue.", "blue", "a BLUE b"], ["blues", "", "red"]),
    ("is-json", None, None, ['{"a": 1}', "[]", ' "x" ', "1e5", "null", "9" * 5000],
     ["{a: 1}", "", "Sure: {}", "NaN", "[1,]", "{} {}", "[" * 5000]),
    ("is-json", PERSON, None, ['{"name": "A"}', '{"name": "", "age": 0}', '{"age": 3.5, "name": "B"}'],
     ['{"name": 1}', "{}", '{"name": "A", "x": 1}', '{"name": "A", "age": -1}', "[]", "no"]),
    ("is-json", SHORT, None, ["[]", '["a"]', '["a", "b"]'], ['["a", "a"]', '["A"]', '["a", "b", "c"]', "{}", "x"]),
    ("is-json", {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": {"type": "string"}}, None,
     ["{}", '{"x1": 1, "y": "a"}', '{"y": ""}'], ['{"x": "a"}', '{"y": 1}', '{"x": 1.5}']),
    ("is-json", {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/n",
                 "definitions": {"n": {"type": "integer"}}}, None, ["1", "1.0", "0"], ["1.5", '"1"', "{}"]),
    ("contains-json", None, None, ['Sure: {"a": 1}.', "{}", 'x {"a": {"b": "}"}} y', '{{"a": 1}'],
     ["none", "As in [1]", "{a: 1}", '{"a": 1', "", "12"]),
    ("contains-json", PERSON, None, ['{"x": 1} {"name": "A"}', '```json\n{"name": "B"}\n```', 'It is {"name": ""}'],
     ['{"x": 1}', '{"name": 2} {}', '["name"]', ""]),
    ("word-count", 2, None, ["a b", " a\n b ", "don't stop"], ["a", "a b c", ""]),
    ("word-count", SPAN, None, ["a b", "a b c", "a, b"], ["a", "a b c d", ""]),
    ("word-count", {"min": 1}, None, ["a", "a b", "."], ["", " ", "\n"]),
    ("word-count", {"max": 1}, None, ["", "a", " a "], ["a b", "a b c", "a - b"]),
    ("is-refusal", None, None,
     ["I'm sorry, but I can't help with that.", "I cannot assist with that request.", "", "I’m unable to provide that.",
      "As an AI language model, I am not able to have feelings.", "Sorry, I won't do that.", "I must decline.",
      "I apologize, but that is private.", "That is against our policy, I fear.", "I am really sorry, but no."],
     ["Paris.", "I'm sorry to hear that! Here is what helps.", "I cannot wait to show you Paris.",
      "You can't go wrong with tea.", "The Glimmo cannot swim.", "I can help you with that.", "Unable is an adjective.",
      "She said she was sorry, but smiled."]),
    ("levenshtein", "kitten", None, ["kitten", "sitting", "kit", "k"], ["", "a very long answer", "KITTENS!!!!!"]),
    ("levenshtein", "kitten", 1, ["kitten", "mitten", "kittens", " kitte "], ["sitting", "kit", ""]),
    ("levenshtein", "ab\n", 0, ["ab", " ab "], ["a", "abc", "AB"]),
    ("rouge-n", "the cat sat", None, ["the cat sat", "The cat, it sat!", "sat the cat on a mat"],
     ["the cat", "dog", "", "cats sit"]),
    ("rouge-n", ["a b", "c d"], 0.5, ["a b", "d", "a x y"], ["x", "", "ab"]),
    ("bleu", "the cat sat on the mat", None,
     ["the cat sat on the mat", "the cat sat on the mat today", "so the cat sat on the mat"],
     ["the cat", "dog", "", "mat the on sat cat the"]),
    ("bleu", ["a b c d", "e f g h"], 0.9, ["a b c d", "e f g h", " a b c d\n"], ["a b c e", "a b c d e f g h", ""]),
    ("f1", "the Eiffel Tower", None, ["Eiffel tower.", "The Eiffel Tower in Paris", "an eiffel"],
     ["Paris", "", "a tower built by many people in France"]),
    ("f1", ["blue", "dark blue"], 1, ["Blue!", "the dark blue", "blue dark"], ["light blue", "", "blue blue blue"]),
    ("exact-match", "the Eiffel Tower", None, ["Eiffel tower.", "An Eiffel Tower", " the eiffel  tower!"],
     ["Eiffel Tower in Paris", "", "tower"]),
    ("exact-match", ["42", "forty-two"], None, ["42", "Forty Two".replace(" ", ""), "42!"], ["4 2", "43", ""]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "threshold", "passing", "failing"), EXAMPLES)
def test_an_assertion_holds_or_not(
    kind: str, value: Any, threshold: float | None, passing: list[str], failing: list[str]
) -> None:
    """An assertion of any type holds for its passing examples and no others; `not-` inverts the result."""
    for answer in [*passing, *failing]:
        there = score(case(Assertion(kind, value, threshold=threshold)), answer)
        twin = score(case(Assertion(kind, value, True, threshold=threshold)), answer)
        assert there.error == twin.error == "", answer
        assert there.passed is (answer in passing), (answer, there.checks[0].reason)
        assert twin.passed is not there.passed, answer
        assert there.value is not None
        assert twin.value is not None
        assert there.value + twin.value == pytest.approx(1)
        assert there.checks[0].reason == twin.checks[0].reason


@pytest.mark.parametrize("kind", BY_TEXT)
def test_every_type_has_examples(kind: str) -> None:
    """Every assertion type that needs only the answer's text has at least six passing and six failing examples."""
    own = [example for example in EXAMPLES if example[0] == kind]
    assert sum(len(passing) for *_, passing, _ in own) >= 6
    assert sum(len(failing) for *_, failing in own) >= 6


@pytest.mark.parametrize(
    ("kind", "value", "answer", "assertion", "reason"),
    [
        ("icontains", "40 dollars", "x", 'icontains "40 dollars"', 'does not contain "40 dollars"'),
        ("equals", "Paris", "Rome", 'equals "Paris"', 'is "Rome", not "Paris"'),
        ("equals", {"a": 1}, "{}", 'equals {"a": 1}', 'is "{}", not {"a": 1}'),
        ("contains-all", ["a", "b"], "b", 'contains-all "a", "b"', 'does not contain "a"'),
        ("contains-any", ["a", "b"], "c", 'contains-any "a", "b"', 'contains none of "a", "b"'),
        ("starts-with", "No", "Yes", 'starts-with "No"', 'does not start with "No"'),
        ("ends-with", "No", "Yes", 'ends-with "No"', 'does not end with "No"'),
        ("regex", "x+", "axx", 'regex "x+"', 'matches "x+" with "xx"'),
        ("is-json", None, "nope", "is-json", "is not JSON: Expecting value at character 1"),
        ("is-json", {"type": "array"}, "{}", 'is-json {"type": "array"}',
         "does not fit the schema: {} is not of type 'array'"),
        ("word-count", SPAN, "a", 'word-count {"min": 2, "max": 3}', "has 1 word"),
        ("levenshtein", "ab", "ba", 'levenshtein "ab"', 'is 2 edits from "ab", where 5 are allowed'),
        ("f1", "a b c", "b d", 'f1 "a b c"', "has F1 0.500, where 0.5 is asked"),
        ("is-refusal", None, "I can't help.", "is-refusal", 'refuses: "i can\'t help"'),
    ],
)  # fmt: skip
def test_reasons_describe_the_answer(kind: str, value: Any, answer: str, assertion: str, reason: str) -> None:
    """The reason of a check describes the answer."""
    found = check(Assertion(kind, value), answer)
    assert (found.assertion, found.reason) == (assertion, reason)


def test_reasons_are_short() -> None:
    """A long answer is shortened in the reason of a check."""
    assert len(check(Assertion("equals", "x"), "y" * 10_000).reason) < 100
    assert len(check(Assertion("is-json", {"type": "array"}), f'"{"y" * 10_000}"').reason) < 200


# --- from checks to a score --------------------------------------------------------------------------------------

A, B = Assertion("contains", "a"), Assertion("contains", "b")


def test_weights_share_the_score() -> None:
    """The score is the weighted mean of the checks, and the case passes only if every check passes."""
    both = case(Assertion("contains", "a", weight=3), B)
    found = score(both, "a")
    assert (found.value, found.passed) == (0.75, False)
    assert [one.passed for one in found.checks] == [True, False]
    assert [one.score for one in found.checks] == [1.0, 0.0]
    assert score(both, "ab").passed


def test_graded_scores_enter_the_mean() -> None:
    """The score of a graded assertion enters the mean as it is, not as 0 or 1."""
    alone = score(case(Assertion("f1", "x y z")), "x y")
    assert (alone.value, alone.passed) == (pytest.approx(0.8), True)
    assert score(case(Assertion("f1", "x y z"), A), "x y").value == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("threshold", "answer", "passed"),
    [(None, "a", False), (0.5, "a", True), (0.51, "a", False), (0.0, "x", True), (1.0, "ab", True), (1.0, "b", False)],
)
def test_a_threshold_replaces_the_rule_that_all_pass(threshold: float | None, answer: str, passed: bool) -> None:
    """A case with a threshold passes if its weighted score reaches it, even if some checks fail."""
    assert score(case(A, B, threshold=threshold), answer).passed is passed


def test_a_threshold_forgives_rounding() -> None:
    """Three of ten equal weights reach a threshold of 0.3, in spite of rounding."""
    found = score(case(*(Assertion("contains", c, weight=0.1) for c in "abcdefghij"), threshold=0.3), "abc")
    assert found.passed


def test_weight_zero_never_fails() -> None:
    """An assertion of weight 0 counts only for its metric, and cannot make the case fail."""
    found = score(case(A, Assertion("contains", "b", weight=0, metric="tone")), "a")
    assert (found.passed, found.value, found.metrics) == (True, 1.0, {"tone": 0.0})


def test_named_metrics_are_weighted_means() -> None:
    """A named metric is the weighted mean of the scores of its assertions, including those within sets."""
    inner = Assertion(SET, weight=2, children=(Assertion("contains", "c", metric="x"),))
    found = score(case(Assertion("contains", "a", metric="x", weight=2), Assertion("contains", "b", metric="y"), inner),
                  "a")  # fmt: skip
    assert found.metrics == {"x": 0.5, "y": 0.0}


@pytest.mark.parametrize(
    ("threshold", "answer", "passed", "value"),
    [(None, "ab", True, 1.0), (None, "a", False, 0.5), (0.5, "a", True, 0.5), (0.5, "b", True, 0.5),
     (0.5, "x", False, 0.0), (0.6, "a", False, 0.5), (0.0, "x", True, 0.0), (1.0, "ba", True, 1.0),
     (0.6, "ab", True, 1.0), (1.0, "b", False, 0.5), (None, "", False, 0.0), (0.1, "x", False, 0.0)],
)  # fmt: skip
def test_a_set_is_one_assertion(threshold: float | None, answer: str, passed: bool, value: float) -> None:
    """A set passes if all its assertions pass, or if its score reaches its threshold; `not-` inverts the result."""
    there = check(Assertion(SET, threshold=threshold, children=(A, B)), answer)
    twin = check(Assertion(SET, negated=True, threshold=threshold, children=(A, B)), answer)
    assert (there.passed, there.score, twin.passed, twin.score) == (passed, value, not passed, 1 - value)
    assert [child.passed for child in there.children] == ["a" in answer, "b" in answer]


def test_sets_hold_sets() -> None:
    """A set within another set counts as one assertion of the outer set."""
    nested = Assertion(SET, threshold=0.5, children=(Assertion(SET, children=(A, B)), Assertion("contains", "c")))
    assert check(nested, "ab").score == 0.5
    assert check(nested, "a").score == 0.25
    assert "1 of 2 hold" in check(nested, "ab").reason


# --- what cannot be decided --------------------------------------------------------------------------------------

ENDLESS = Assertion("regex", "(a+)+$")


def test_an_endless_search_is_an_error() -> None:
    """A search that would take nearly forever, such as for `(a+)+$`, is ended with an error and no score."""
    start = time.process_time()
    found = score(case(A, ENDLESS, ENDLESS, ENDLESS), "a" * 100_000 + "b")
    assert time.process_time() - start < 10
    assert (found.value, found.passed) == (None, False)
    assert "no verdict within 1 s" in found.error
    assert [one.score for one in found.checks] == [1.0, None]


def test_an_endless_search_under_not_is_an_error() -> None:
    """A pattern under `not-` that takes too long is an error, not a pass."""
    assert score(case(Assertion("regex", "(a+)+$", negated=True)), "a" * 50_000 + "b").error


def test_an_error_within_a_set_is_an_error_of_the_set() -> None:
    """A set has no score if one of its assertions has none, even if the threshold of the set or the case is reached."""
    answer = "a" * 50_000 + "b"
    found = score(case(Assertion(SET, threshold=0.1, children=(A, ENDLESS)), threshold=0.0), answer)
    assert (found.value, found.passed) == (None, False)
    assert "no verdict" in found.error


def test_an_unknown_assertion_is_an_error() -> None:
    """An assertion type that this version does not know is an error and gives no score."""
    found = score(case(Assertion("telepathy", "x")), "y")
    reason = "this version of the harness does not know the assertion type telepathy"
    assert (found.value, found.error) == (None, f'telepathy "x": {reason}')


HOSTILE = {
    "x": "x" * 10**6,
    "[": "[" * 10**6,
    "{": "{" * 10**6,
    '{"': '{"a":' * 200_000,
    "objects": '{"a":1} ' * 125_000,
    "1": "1" * 10**6,
    "words": "a b, " * 200_000,
    "dots": ". , " * 250_000,
    "broken": "\x00\ud800" * 1000,
    "list": f"[{'{},' * 300_000}1]",
}
UNDECIDED = {"bleu", "levenshtein", "contains-json", "is-json"}
"""Assertion types that may give an error instead of a score for a hostile answer."""
SLOW = {"bleu", "rouge-n", "f1", "exact-match", "contains-json"}
"""Assertion types whose last example also does with an answer what their earlier examples do."""
ATTACKED = [example[:2] for example in EXAMPLES if example[0] not in SLOW]
ATTACKED += [example[:2] for example in {example[0]: example for example in EXAMPLES if example[0] in SLOW}.values()]


@pytest.mark.parametrize(("kind", "value"), ATTACKED)
@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_are_judged(kind: str, value: Any, answer: str) -> None:
    """A megabyte of nested, numeric or invalid text gets a score or an error within ten seconds."""
    start = time.process_time()
    found = score(case(Assertion(kind, value)), answer)
    assert time.process_time() - start < 10
    assert not found.error or kind in UNDECIDED


@pytest.mark.parametrize("kind", ["levenshtein", "bleu", "rouge-n", "f1", "exact-match"])
def test_very_long_texts_are_not_compared(kind: str) -> None:
    """Two texts that are too long to be compared give an error and no score."""
    found = score(case(Assertion(kind, "a b " * 500_000)), "b a " * 500_000)
    assert found.value is None
    assert "compared" in found.error or "too many" in found.error


@settings(deadline=None)
@given(st.text(), st.text(min_size=1))
def test_ignoring_case_only_widens(answer: str, value: str) -> None:
    """If `contains` passes, `icontains` with the same text passes too."""
    if check(Assertion("contains", value), answer).passed:
        assert check(Assertion("icontains", value), answer).passed


@settings(deadline=None)
@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3))
def test_any_and_all_agree_with_contains(answer: str, values: list[str]) -> None:
    """`contains-any` passes if `contains` passes for any of its texts, and `contains-all` if it passes for all."""
    each = [check(Assertion("contains", value), answer).passed for value in values]
    assert check(Assertion("contains-any", values), answer).passed is any(each)
    assert check(Assertion("contains-all", values), answer).passed is all(each)


SAMPLE: dict[str, Any] = {kind: value for kind, value, *_ in EXAMPLES}


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(BY_TEXT), st.text())
def test_every_score_is_a_share_or_has_a_reason(kind: str, answer: str) -> None:
    """For any answer, the score of a check is from 0 to 1, or missing with a reason."""
    found = check(Assertion(kind, SAMPLE[kind]), answer.strip())
    assert found.reason
    assert found.score is None or 0 <= found.score <= 1


def test_scoring_imports_only_what_it_needs(tmp_path: Path) -> None:
    """Scoring simple assertions does not import libraries for text comparison, metrics or training."""
    text = "tests: [{prompt: p, assert: [{type: icontains, value: a}, {type: is-json}]}]"
    assert parse_suite(text, "suite.yaml", lambda name: _no_file(name)).cases
    program = (
        "import sys; from harness.scoring import score; from harness.core.suite import Assertion, Case;"
        "score(Case('c', (), (Assertion('icontains', 'a'), Assertion('is-json'), Assertion('is-refusal'))), 'a');"
        "print(sorted({n.partition('.')[0] for n in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    heavy = ["torch", "evaluate", "rouge_score", "nltk", "sacrebleu", "rapidfuzz", "jsonschema", "datasets", "numpy"]
    assert not [name for name in heavy if f"'{name}'" in done.stdout]


def _no_file(name: str) -> str:
    raise FileNotFoundError(name)
