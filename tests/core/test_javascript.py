"""Tests of how values are written as JavaScript writes them. The expected texts are from Node 24."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core import javascript


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, "0.1"), (1.0, "1"), (-0.0, "0"), (100, "100"), (1e21, "1e+21"), (1e20, "100000000000000000000"),
        (123456789012345680000, "123456789012345680000"), (12345678901234567890, "12345678901234567000"),
        (1e-6, "0.000001"), (1e-7, "1e-7"), (1.5e-10, "1.5e-10"), (5e-324, "5e-324"), (-12.5, "-12.5"),
        (float("nan"), "NaN"), (float("-inf"), "-Infinity"),
    ],
)  # fmt: skip
def test_numbers(value: float, expected: str) -> None:
    """Numbers are written as `String(value)` gives them."""
    assert javascript.number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""), (True, "true"), ("x", "x"), ({"a": 1}, "[object Object]"),
        ([1.0, [None, "a"], {}], "1,,a,[object Object]"),
    ],
)  # fmt: skip
def test_texts(value: Any, expected: str) -> None:
    """Other values are written as a template writes them."""
    assert javascript.text(value) == expected


def test_json() -> None:
    """JSON has the spelling and the order of keys of `JSON.stringify`."""
    value = {"b": [1.0, "\u00e9\n\u2028\x7f", None], "10": 1, "2": True, "01": {}, "e": []}
    assert javascript.to_json(value) == '{"2":true,"10":1,"b":[1,"\u00e9\\n\u2028\x7f",null],"01":{},"e":[]}'
    assert javascript.to_json({"a": [1, {"b": 2}]}, 2) == '{\n  "a": [\n    1,\n    {\n      "b": 2\n    }\n  ]\n}'


@pytest.mark.parametrize(
    ("text", "new", "expected"),
    [("abab", "x", "axab"), ("none", "$&", "none"), ("abc", "[$`|$&|$'|$$|$1|$]", "a[a|b|c|$|$1|$]c")],
)
def test_replacing(text: str, new: str, expected: str) -> None:
    """Only the first occurrence is replaced, and `$` in the replacement has the meaning that JavaScript gives it."""
    assert javascript.replace_first(text, "b", new) == expected


def test_trimming() -> None:
    """`trim()` removes the white space of JavaScript, which is not that of Python."""
    assert javascript.trim("\ufeff\u2003 a\u0085\x1c \n") == "a\u0085\x1c"
