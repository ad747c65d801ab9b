"""Tests that YAML 1.2 is read with the right values and spelling, and that nesting is limited."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import SuiteError
from harness.core.yaml import MAX_DEPTH, parse_yaml
from harness.core.yaml.document import resolve
from tests.support.suite_texts import case


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("y", "y"), ("12:30:00", "12:30:00"), ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"), ("0b1", "0b1"), ("1e-4", 1e-4), ("1e3", 1000.0), ("-.5", -0.5), ("+1", 1), ("1.", 1.0),
        ("0o17", 15), ("0x1F", 31), ("017", 17), ("true", True), ("False", False), ("tRUE", "tRUE"), ("~", None),
        ("Null", None), (".inf", math.inf), ("-.INF", -math.inf), (".5e1", 5.0), ("e3", "e3"), (".", "."), ("-", "-"),
    ],
)  # fmt: skip
def test_scalars_are_of_yaml_1_2(text: str, meaning: Any) -> None:
    """Unquoted scalars have the values of the core schema of YAML 1.2."""
    found = resolve(text)
    assert found == meaning
    assert isinstance(found, bool) == isinstance(meaning, bool)


@pytest.mark.parametrize("text", ["no", "on", "12:30:00", "1e-4", "007", "true", "3.10"])
def test_text_is_as_spelt(text: str) -> None:
    """An unquoted scalar keeps its spelling where text is expected."""
    (found,) = case(f"prompt: {text}\nassert: [{{type: contains, value: {text}}}]").cases
    assert (found.prompt, found.assertions[0].value) == (text, text)


@settings(deadline=None)
@given(st.integers() | st.floats(allow_nan=False))
def test_numbers_survive(number: float) -> None:
    """A number in Python's notation is read as the same number."""
    assert resolve(repr(number).replace("inf", ".inf")) == number


words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=8)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_values)
def test_json_is_yaml(value: Any) -> None:
    """JSON text is read as the values that were written, both with libyaml and with PyYAML's Python parser."""
    text = json.dumps(value, ensure_ascii=False)
    assert parse_yaml(text, "f", SuiteError).value == value
    assert parse_yaml(text, "f", SuiteError, loader=yaml.SafeLoader).value == value


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 20_000, "- " * 20_000, "? " * 20_000])
def test_nesting_is_bounded(text: str, loader: Any) -> None:
    """If text is nested 20,000 levels deep, both parsers refuse it with line and column."""
    with pytest.raises(SuiteError) as caught:
        parse_yaml(text, "f.yaml", SuiteError, loader=loader)
    assert caught.value.place is not None
    assert caught.value.place.column is not None


def test_reasonable_nesting_is_read() -> None:
    """Text that is nested as deep as the limit allows is read."""
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f", SuiteError).value


@pytest.mark.parametrize("text", ["a: x{0}  y", 'a: "x{0}  y"', "a: |\n  x{0}  y", "a{0}b: 1", "# {0}\na: 1"])
@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029"])
def test_only_line_feeds_end_lines(text: str, character: str) -> None:
    """The characters U+0085, U+2028 and U+2029 are part of a text, as in YAML 1.2, and do not end a line."""
    found = parse_yaml(text.format(character), "f", SuiteError)
    expected = {"a": f"x{character}  y"} if "x" in text else {f"a{character}b" if "b" in text else "a": 1}
    assert found.value == expected
