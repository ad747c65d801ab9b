"""The registry of assertion types: what may be written in a suite, what judges it, and what it needs.

Every other part of the package asks here. A new type is one function and one row in the module of its family.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.core.suite import Assertion
from harness.scoring import external, log_probabilities, sets, similarity, structure, text
from harness.scoring.promptfoo import is_promptfoo
from harness.scoring.types import AssertionType, Need

_FAMILIES = (text, structure, similarity, log_probabilities, external, sets)
ASSERTION_TYPES: dict[str, AssertionType] = {row.name: row for family in _FAMILIES for row in family.TYPES}
"""Every assertion type that can be judged, by its name without `not-`."""
NOT = "not-"
WRITABLE = (*ASSERTION_TYPES, *(f"{NOT}{name}" for name in ASSERTION_TYPES))
"""Every name that may be written as an assertion's type."""


def find(written: str) -> AssertionType | None:
    """Return the type that a written name stands for, with or without `not-`; None if there is no such type."""
    return ASSERTION_TYPES.get(written.removeprefix(NOT))


def is_negated(written: str) -> bool:
    """Whether a written name is that of the negation."""
    return written.startswith(NOT)


def is_unsupported(written: str) -> bool:
    """Whether promptfoo has this type and the harness does not."""
    return find(written) is None and is_promptfoo(written.removeprefix(NOT))


def needs(assertions: Iterable[Assertion], need: Need) -> bool:
    """Whether any of these assertions, or of those within them, needs this."""
    return any(
        assertion.type in ASSERTION_TYPES and need in ASSERTION_TYPES[assertion.type].needs
        for assertion in _all(assertions)
    )


def code_of(assertions: Iterable[Assertion]) -> list[str]:
    """Name the code that assertions would run, each once: what `Scoring.allow_code` permits."""
    found = (ASSERTION_TYPES[one.type].code_in(one.value) for one in _all(assertions) if one.type in ASSERTION_TYPES)
    return list(dict.fromkeys(name for name in found if name))


def _all(assertions: Iterable[Assertion]) -> Iterator[Assertion]:
    for assertion in assertions:
        yield assertion
        yield from _all(assertion.children)


def table() -> str:
    """Write the Markdown table of all assertion types that suites/README.md shows."""
    rows = [f"| `{row.name}` | {row.meaning} | {row.score} |" for row in ASSERTION_TYPES.values()]
    return "\n".join(["| Type | Holds if the answer | Score |", "|---|---|---|", *rows, ""])
