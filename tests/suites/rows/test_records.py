"""Tests that one error lists the rows that cannot be used, within limits."""

from __future__ import annotations

import pytest

from harness.core.errors import SuiteError
from harness.suites.rows.records import MOST_KINDS, Mistake, Records, has_content, raise_mistakes


def error(mistakes: list[Mistake], unit: str = "line") -> str:
    with pytest.raises(SuiteError) as caught:
        raise_mistakes(Records("rows.csv", unit=unit), mistakes)
    return str(caught.value)


def test_no_mistake_is_no_error() -> None:
    """Without mistakes, nothing is raised."""
    raise_mistakes(Records("rows.csv"), [])


def test_one_mistake_has_its_place() -> None:
    """A single mistake is an error at its line and column, or with the number of its row."""
    assert error([Mistake(3, "is wrong", "Mend it.", 4)]) == "rows.csv:3:4: is wrong\nMend it."
    assert error([Mistake(3, "is wrong", "Mend it.")], "row") == "rows.csv: row 3: is wrong\nMend it."


def test_many_mistakes_are_listed_within_limits() -> None:
    """Equal mistakes are one line with up to 100 numbers; further kinds of mistakes are counted."""
    same = [Mistake(number, "is wrong", "Mend it.") for number in range(1, 1000)]
    other = [Mistake(number, f"is {number}") for number in range(1000, 1100)]
    lines = error([*same, *other]).splitlines()
    assert lines[0] == "rows.csv:1: 1,099 rows cannot be used:"
    assert lines[1] == f"lines {', '.join(map(str, range(1, 101)))} and 899 more: is wrong  Mend it."
    assert len(lines) == MOST_KINDS + 2
    assert lines[-1] == "and 91 more rows with other mistakes"


@pytest.mark.parametrize("value", [None, "", "  ", [], {}, {"text": [], "start": None}])
def test_what_holds_nothing(value: object) -> None:
    """Blank text, nothing, and lists and mappings without content hold nothing."""
    assert not has_content(value)


@pytest.mark.parametrize("value", [0, False, "a", [0], {"a": 1}])
def test_what_holds_something(value: object) -> None:
    """Numbers, truth values, and lists and mappings with content hold something."""
    assert has_content(value)
