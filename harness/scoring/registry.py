"""The registry of assertion types: one row for each type, with the values that it accepts, its judge and its needs.

A new type is one function and one row of `TYPES` in a module of `assertion_types`, such as `assertion_types/text.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from harness.core.suite import Assertion
from harness.scoring.assertion_type import AssertionType, Extra, Need
from harness.scoring.assertion_types import (
    external,
    javascript,
    log_probabilities,
    model_graded,
    sets,
    similarity,
    structure,
    text,
)
from harness.scoring.findings import CannotScoreError, Scoring, quote
from harness.scoring.promptfoo import is_promptfoo

FAMILIES = (text, structure, similarity, log_probabilities, external, javascript, model_graded, sets)
"""The modules that define assertion types."""
ASSERTION_TYPES: dict[str, AssertionType] = {row.name: row for family in FAMILIES for row in family.TYPES}
"""Every supported assertion type, by its name without `not-`."""
NOT = "not-"
WRITABLE = (*ASSERTION_TYPES, *(f"{NOT}{name}" for name in ASSERTION_TYPES))
"""Every name that a suite may contain as an assertion's type."""


def find(written: str) -> AssertionType | None:
    """Return the type with this name, written with or without `not-`; None if there is no such type."""
    return ASSERTION_TYPES.get(written.removeprefix(NOT))


def is_negated(written: str) -> bool:
    """Whether the name of a type begins with `not-`."""
    return written.startswith(NOT)


def is_unsupported(written: str) -> bool:
    """Whether promptfoo has a type with this name, and the harness does not."""
    return find(written) is None and is_promptfoo(written.removeprefix(NOT))


def needs(assertions: Iterable[Assertion], need: Need) -> bool:
    """Whether any of these assertions, or an assertion within them, has this need."""
    return any(
        assertion.type in ASSERTION_TYPES and need in ASSERTION_TYPES[assertion.type].needs
        for assertion in all_of(assertions)
    )


def code_of(assertions: Iterable[Assertion]) -> list[str]:
    """Return the names of the code that assertions would run, each once. Code runs only with `Scoring.allow_code`."""
    found = (ASSERTION_TYPES[one.type].code_in(one.value) for one in all_of(assertions) if one.type in ASSERTION_TYPES)
    return list(dict.fromkeys(name for name in found if name))


def unusable_code(assertions: Iterable[Assertion], scoring: Scoring) -> str:
    """Run the files that assertions name, once each, and say why one has not the function; empty if all have.

    Without `Scoring.allow_code`, none is run, and the first is the one that may not be.
    """
    loads = {(one.type, str(one.value)): one for one in all_of(assertions) if one.type in ASSERTION_TYPES}
    for one in loads.values():
        value = ASSERTION_TYPES[one.type].value
        if value.load and value.file and value.file(one.value):
            try:
                value.load(one.value, scoring)
            except CannotScoreError as problem:
                return f"{one.type} {one.value}: {problem}"
    return ""


def broken_code(assertions: Iterable[Assertion], read: Callable[[str], str]) -> str:
    """Say why the code of an assertion is no program, with a remedy in the second line; empty if all code compiles.

    `read` returns the text of a file in the suite's folder. Nothing is run. Code is not compiled without its extra.
    """
    for one in all_of(assertions):
        kind = ASSERTION_TYPES.get(one.type)
        if kind is None or kind.value.compile is None or (kind.extra and not kind.extra.is_installed):
            continue
        file = kind.value.file(one.value) if kind.value.file else ""
        try:
            kind.value.compile(one.value, read(file) if file else "")
        except CannotScoreError as problem:
            return f"{one.type} {quote(one.value)}: {problem}"
    return ""


def missing_extras(assertions: Iterable[Assertion]) -> dict[Extra, str]:
    """Return the extras that assertions need and that are not installed, each with the name of an assertion type."""
    kinds = (ASSERTION_TYPES[one.type] for one in all_of(assertions) if one.type in ASSERTION_TYPES)
    return {kind.extra: kind.name for kind in kinds if kind.extra and not kind.extra.is_installed}


def check_values(assertions: Iterable[Assertion]) -> None:
    """Check the values of stored assertions. Those of a suite were checked when it was read.

    Raises:
        ValueError: a value does not fit its type, for example because the file was edited.
    """
    for one in all_of(assertions):
        kind = ASSERTION_TYPES.get(one.type)
        if not kind or kind.value.code or (one.value is None and kind.value.or_reference):
            continue
        if kind.read(one.type, one.value) != one.value:  # such as a number where the judge expects text
            raise ValueError(f"{one.type} has a value that no suite can give it")


def all_of(assertions: Iterable[Assertion]) -> Iterator[Assertion]:
    """Yield assertions, each followed by the assertions within it."""
    for assertion in assertions:
        yield assertion
        yield from all_of(assertion.children)


def table() -> str:
    """Return the Markdown table of all assertion types, for docs/assertions.md."""
    rows = [f"| `{row.name}` | {row.meaning} | {row.score} |" for row in ASSERTION_TYPES.values()]
    return "\n".join(["| Type | Holds if the answer | Score |", "|---|---|---|", *rows, ""])
