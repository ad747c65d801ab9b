"""Tests of promptfoo's plain transforms of an answer."""

from __future__ import annotations

import pytest

from harness.scoring import score
from harness.scoring.transforms import TransformFailedError, is_plain, transformed
from tests.support.suite_texts import case


@pytest.mark.parametrize(
    ("expression", "answer", "expected"),
    [
        ("output.trim()", " a\ufeff", "a"),
        ("output.trim().toLowerCase()", " TEAL ", "teal"),
        ("output.toUpperCase();", "teal", "TEAL"),
        ("output.split(' ')[1]", "a b c", "b"),
        ("JSON.parse(output)", '{"b": 1.0, "a": [null]}', '{"b":1,"a":[null]}'),
        ("return JSON.parse(output).items[1].name.trim()", '{"items": [0, {"name": " x "}]}', "x"),
        ('JSON.parse(output)["a b"]', '{"a b": true}', "true"),
    ],
)
def test_plain_transforms_are_applied(expression: str, answer: str, expected: str) -> None:
    """A plain transform gives the text that JavaScript gives; a value that is no text becomes JSON."""
    assert is_plain(expression)
    assert transformed(answer, expression) == expected


@pytest.mark.parametrize(
    "expression",
    ["output.text", "output[0].function.name", "output.length", "file://a.js", "output.replace('a', 'b')", "x", 7,
     "output.split(/a/)[0]", "JSON.parse(output).map(x => x)", "output + 'a'", "context.vars.a"],
)  # fmt: skip
def test_other_transforms_are_not_plain(expression: object) -> None:
    """A transform that is code, or is for answers that are no texts, is not plain."""
    assert not is_plain(expression)


@pytest.mark.parametrize("answer", ["no JSON", "{}", '{"a": null}', '{"a": [1]}', "[" * 5000])
def test_a_transform_without_a_value_fails(answer: str) -> None:
    """If the answer is not JSON, or a part is missing, the transform fails."""
    with pytest.raises(TransformFailedError, match="the transform JSON"):
        transformed(answer, "JSON.parse(output).a.trim()")


def test_an_answer_that_cannot_be_transformed_fails_every_assertion() -> None:
    """The transform of a case comes before that of an assertion; if one fails, so does even a negated assertion."""
    (asked,) = case(
        "prompt: a\noptions: {transform: JSON.parse(output).colour}\n"
        "assert: [{type: equals, value: TEAL, transform: output.toUpperCase()}, {type: not-contains, value: red}]"
    ).cases
    assert score(asked, '{"colour": "teal"}').passed
    found = score(asked, "teal")
    assert [check.passed for check in found.checks] == [False, False]
