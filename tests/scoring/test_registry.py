"""Tests of the registry of assertion types.

`python -m tests.scoring.test_registry` writes the registry's table to docs/assertions.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.suite import Assertion
from harness.scoring import ASSERTION_TYPES, AssertionType, Need, code_of, needs
from harness.scoring.registry import WRITABLE, check_values, find, is_negated, is_unsupported, table

GUIDE = Path(__file__).parents[2] / "docs" / "assertions.md"
TABLE = re.compile(r"^\| Type \| Holds if .*?\n(?=\n)", re.MULTILINE | re.DOTALL)


def test_the_documented_table_is_current() -> None:
    """The table of assertion types in docs/assertions.md equals the registry's table."""
    (written,) = TABLE.findall(GUIDE.read_text(encoding="utf-8"))
    assert written == table(), "run `python -m tests.scoring.test_registry`"


@pytest.mark.parametrize("row", ASSERTION_TYPES.values(), ids=lambda row: row.name)
def test_a_row_is_found_by_its_name_and_its_negation(row: AssertionType) -> None:
    """The name of a type and its negation with `not-` find the same row."""
    assert {row.name, f"not-{row.name}"} <= set(WRITABLE)
    assert find(row.name) is find(f"not-{row.name}") is row
    assert (is_negated(row.name), is_negated(f"not-{row.name}")) == (False, True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
VALUES = JSON | st.sampled_from(["a, b", '"a,b",c', "^a+$", '{"type": "object"}', {"type": "object"}, ["a,b", '"c"']])


@pytest.mark.parametrize(
    "row", [row for row in ASSERTION_TYPES.values() if not row.value.code], ids=lambda row: row.name
)
@given(value=VALUES)
def test_a_stored_value_fits_its_type(row: AssertionType, value: Any) -> None:
    """Whatever a type reads from a suite is accepted when it is read again from a stored run."""
    try:
        read = row.read(row.name, value)
    except ValueError:
        return
    check_values([Assertion(row.name, json.loads(json.dumps(read)))])


def test_a_stored_value_of_another_kind_is_refused() -> None:
    """A number where a judge expects text, as in an edited run, is refused, although a suite may write it."""
    check_values([Assertion("contains", "-1")])
    with pytest.raises(ValueError, match="contains has a value that no suite can give it"):
        check_values([Assertion("contains", -1)])


def test_names_are_unique() -> None:
    """No two types have the same name, and none begins with `not-`."""
    assert len(set(WRITABLE)) == len(WRITABLE) == 2 * len(ASSERTION_TYPES)


@pytest.mark.parametrize("name", ["g-eval", "not-g-eval", "similar:dot", "not-similar:dot", "webhook"])
def test_a_name_that_only_promptfoo_has_is_unsupported(name: str) -> None:
    """If only promptfoo has a type of this name, the name is unsupported, also with `not-` or a variant (`:cosine`)."""
    assert is_unsupported(name)
    assert find(name) is None


@pytest.mark.parametrize("name", [*WRITABLE, "telepathy", "not-telepathy"])
def test_a_row_makes_a_name_supported(name: str) -> None:
    """A name counts as unsupported only if promptfoo has it and the registry does not."""
    assert not is_unsupported(name)


def test_needs_are_found_within_sets() -> None:
    """A set has the needs of the assertions within it, and an unknown type has no needs."""
    choice = Assertion("assert-set", children=(Assertion("contains", "a"), Assertion("choice", "a")))
    assert needs([choice], Need.LOG_PROBABILITIES)
    assert needs([choice], Need.CHOICES)
    assert not needs([choice], Need.REFERENCE)
    assert not needs([Assertion("contains", "a"), Assertion("telepathy")], Need.LOG_PROBABILITIES)


def test_code_is_named_once() -> None:
    """Functions and metrics in the suite's folder, and metrics by users of the Hub, are listed as code, each once."""
    own, hub, plain = (Assertion("evaluate", {"metric": name}) for name in ("mine.py", "user/metric", "accuracy"))
    function = Assertion("python", "judges.py:short")
    within = Assertion("assert-set", children=(hub, function))
    assert code_of([own, function, plain, within, Assertion("regex", "a.py")]) == [
        "mine.py", "judges.py:short", "user/metric",
    ]  # fmt: skip


def test_only_a_type_without_a_required_value_stands_alone() -> None:
    """A CSV cell with only a name is an assertion if the type needs neither a value nor a threshold."""
    alone = [row.name for row in ASSERTION_TYPES.values() if row.can_stand_alone]
    assert sorted(alone) == ["contains-json", "is-json", "is-refusal"]


if __name__ == "__main__":
    GUIDE.write_text(TABLE.sub(lambda _: table(), GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
