"""An answer to a case, judged: every assertion a `Check` with its reason, all of them one `Score`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.records import Assertion, Case, Check, Score

REGEX_SECONDS = 1.0
"""Processor time after which a pattern is given up: backtracking can take longer than anyone waits.

Not wall time (`regex` counts so), and thus no verdict depends on what else the machine does.
"""
SHOWN = 60


class CannotScoreError(Exception):
    """An assertion that cannot be decided; becomes the score's error, never a failed check."""


@dataclass(frozen=True)
class Finding:
    """Whether an assertion's plain form holds, and a statement that is true either way."""

    holds: bool
    statement: str


Judge = Callable[[str, Assertion], Finding]


def score(case: Case, answer: str) -> Score:
    """The weighted share of the case's assertions that hold; the answer is stripped of white space around it."""
    text = answer.strip()
    checks: list[Check] = []
    for assertion in case.assertions:
        try:
            checks.append(judge(assertion, text))
        except CannotScoreError as problem:
            return Score(
                case.id, passed=False, value=None, checks=tuple(checks), error=f"{describe(assertion)}: {problem}"
            )
    weights = [assertion.weight for assertion in case.assertions]
    share = sum(weight for weight, check in zip(weights, checks, strict=True) if check.passed) / sum(weights)
    return Score(case.id, passed=all(check.passed for check in checks), value=share, checks=tuple(checks))


def judge(assertion: Assertion, answer: str) -> Check:
    """One assertion's verdict; raises `CannotScoreError`."""
    known = JUDGES.get(assertion.type)
    if known is None:
        raise CannotScoreError("this version has no such assertion")
    finding = known(answer, assertion)
    return Check(describe(assertion), finding.holds is not assertion.negated, finding.statement)


def describe(assertion: Assertion) -> str:
    """An assertion as a reader would name it: `icontains "40 dollars"`."""
    return assertion.name if assertion.value is None else f"{assertion.name} {_quote(assertion.value)}"


# --- judges ------------------------------------------------------------------------------------------------------


def _same(text: str) -> str:
    return text


def _equals(answer: str, assertion: Assertion) -> Finding:
    # A value written as a YAML block ends with a line feed, which no stripped answer does.
    value = assertion.value.strip()
    if answer == value:
        return Finding(True, f"is {_quote(value)}")
    return Finding(False, f"is {_quote(answer)}, not {_quote(value)}")


def _contains(fold: Callable[[str], str]) -> Judge:
    def contains(answer: str, assertion: Assertion) -> Finding:
        holds = fold(assertion.value) in fold(answer)
        return Finding(holds, f"{'contains' if holds else 'does not contain'} {_quote(assertion.value)}")

    return contains


def _contains_any(fold: Callable[[str], str]) -> Judge:
    def contains_any(answer: str, assertion: Assertion) -> Finding:
        text = fold(answer)
        found = next((value for value in assertion.value if fold(value) in text), None)
        if found is not None:
            return Finding(True, f"contains {_quote(found)}")
        return Finding(False, f"contains none of {_quote(assertion.value)}")

    return contains_any


def _contains_all(fold: Callable[[str], str]) -> Judge:
    def contains_all(answer: str, assertion: Assertion) -> Finding:
        text = fold(answer)
        lacking = [value for value in assertion.value if fold(value) not in text]
        if lacking:
            return Finding(False, f"does not contain {_quote(lacking)}")
        return Finding(True, f"contains all of {_quote(assertion.value)}")

    return contains_all


def _starts_with(answer: str, assertion: Assertion) -> Finding:
    holds = answer.startswith(assertion.value)
    return Finding(holds, f"{'starts' if holds else 'does not start'} with {_quote(assertion.value)}")


def _regex(answer: str, assertion: Assertion) -> Finding:
    import regex  # 20 ms that suites without patterns need not pay

    try:
        found = regex.search(assertion.value, answer, timeout=REGEX_SECONDS)
    except TimeoutError:
        raise CannotScoreError(f"no verdict within {REGEX_SECONDS:g} s; simplify the pattern") from None
    except regex.error as problem:
        raise CannotScoreError(f"not a regular expression: {problem}") from None
    if found is None:
        return Finding(False, f"does not match {_quote(assertion.value)}")
    return Finding(True, f"matches {_quote(assertion.value)} with {_quote(found.group())}")


def _is_json(answer: str, assertion: Assertion) -> Finding:
    del assertion
    try:
        # Numbers are kept as text: a million digits are valid JSON and take hours to convert.
        json.loads(answer, parse_int=str, parse_float=str, parse_constant=_no_constant)
    except json.JSONDecodeError as problem:
        return Finding(False, f"is not JSON: {problem.msg} at character {problem.pos + 1}")
    except ValueError as problem:
        return Finding(False, f"is not JSON: {problem}")
    except RecursionError:
        return Finding(False, "is not JSON that can be read: nested too deep")
    return Finding(True, "is JSON")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


JUDGES: dict[str, Judge] = {
    "equals": _equals,
    "contains": _contains(_same),
    "icontains": _contains(str.casefold),
    "contains-any": _contains_any(_same),
    "icontains-any": _contains_any(str.casefold),
    "contains-all": _contains_all(_same),
    "icontains-all": _contains_all(str.casefold),
    "starts-with": _starts_with,
    "regex": _regex,
    "is-json": _is_json,
}
"""Every assertion type, without `not-`."""


def _quote(value: Any) -> str:
    """A text, or several, in double quotes and not too long."""
    if isinstance(value, list | tuple):
        return ", ".join(_quote(item) for item in value)
    text = str(value)
    return json.dumps(text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}...", ensure_ascii=False)
