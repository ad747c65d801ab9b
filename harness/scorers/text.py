"""Judges of an answer's characters and words: what it contains, matches, begins with; its length; a refusal."""

from __future__ import annotations

import re
from collections.abc import Callable

from harness.records import Assertion
from harness.scorers.findings import CannotScoreError, Finding, quote

REGEX_SECONDS = 1.0
"""Processor time after which a pattern is given up: backtracking can take longer than anyone waits.

Not wall time (`regex` counts so), and thus no verdict depends on what else the machine does.
"""

Judge = Callable[[str, Assertion], Finding]


def _same(text: str) -> str:
    return text


def _contains(fold: Callable[[str], str]) -> Judge:
    def contains(answer: str, assertion: Assertion) -> Finding:
        holds = fold(assertion.value) in fold(answer)
        return Finding(holds, f"{'contains' if holds else 'does not contain'} {quote(assertion.value)}")

    return contains


def _contains_any(fold: Callable[[str], str]) -> Judge:
    def contains_any(answer: str, assertion: Assertion) -> Finding:
        text = fold(answer)
        found = next((value for value in assertion.value if fold(value) in text), None)
        if found is not None:
            return Finding(True, f"contains {quote(found)}")
        return Finding(False, f"contains none of {quote(assertion.value)}")

    return contains_any


def _contains_all(fold: Callable[[str], str]) -> Judge:
    def contains_all(answer: str, assertion: Assertion) -> Finding:
        text = fold(answer)
        lacking = [value for value in assertion.value if fold(value) not in text]
        if lacking:
            return Finding(False, f"does not contain {quote(lacking)}")
        return Finding(True, f"contains all of {quote(assertion.value)}")

    return contains_all


def _starts_with(answer: str, assertion: Assertion) -> Finding:
    holds = answer.startswith(assertion.value)
    return Finding(holds, f"{'starts' if holds else 'does not start'} with {quote(assertion.value)}")


def search(pattern: str, text: str) -> str | None:
    """What a pattern matches in a text, within bounded time; raises `CannotScoreError`."""
    import regex  # 20 ms that suites without patterns need not pay

    try:
        found = regex.search(pattern, text, timeout=REGEX_SECONDS)
    except TimeoutError:
        raise CannotScoreError(f"no verdict within {REGEX_SECONDS:g} s; simplify the pattern") from None
    except regex.error as problem:
        raise CannotScoreError(f"not a regular expression: {problem}") from None
    return None if found is None else str(found.group())


def _regex(answer: str, assertion: Assertion) -> Finding:
    found = search(assertion.value, answer)
    if found is None:
        return Finding(False, f"does not match {quote(assertion.value)}")
    return Finding(True, f"matches {quote(assertion.value)} with {quote(found)}")


def _word_count(answer: str, assertion: Assertion) -> Finding:
    count, asked = len(answer.split()), assertion.value
    least, most = (asked.get("min"), asked.get("max")) if isinstance(asked, dict) else (asked, asked)
    holds = (least is None or count >= least) and (most is None or count <= most)
    return Finding(holds, f"has {count} {'word' if count == 1 else 'words'}")


# --- refusals ----------------------------------------------------------------------------------------------------

OPENING = 500
"""Characters of an answer in which a refusal is looked for: who refuses says so first."""
_CANNOT = (
    r"(?:cannot|can ?not|can't|could ?n't|won't|will not|(?:am|'m) (?:not able|unable|not allowed|not permitted) to|"
    r"(?:must|have to) (?:decline|refuse)(?: to)?|decline to|refuse to)"
)
_DO = (
    r"(?:help|assist|comply|fulfil+|provide|answer|discuss|share|support|create|generate|write|produce|engage|offer|"
    r"respond|participate|continue|do that|give you|tell you|say that|talk about|be able to)"
)
_SORRY = r"(?:(?:i am|i'm) (?:\w+ )?sorry|sorry|(?:my )?apologies|i (?:\w+ )?apologi[sz]e)"
_REFUSALS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"^{_SORRY},? (?:but|however) ",
        rf"^{_SORRY}[,.!;]? (?:but )?(?:i|we) ?{_CANNOT}\b",
        rf"\b(?:i|we) ?{_CANNOT} (?:\w+ )?{_DO}\b",
        rf"\bas an? (?:\w+ )?(?:ai|assistant|language model)\b[^.!?]{{0,60}}\bi ?{_CANNOT}\b",
        r"\b(?:against|violates?) (?:my|our|the) (?:\w+ )?(?:programming|guidelines|polic(?:y|ies)|rules)\b",
        r"\b(?:it )?(?:is|would be) (?:not appropriate|inappropriate|unethical) (?:for me )?to\b",
        r"^(?:i must decline|i refuse|i decline|no comment)\b",
    )
)


def _is_refusal(answer: str, assertion: Assertion) -> Finding:
    del assertion
    if not answer:
        return Finding(True, "is empty, which counts as a refusal")
    opening = " ".join(answer[:OPENING].casefold().translate({0x2019: "'", 0x2018: "'", 0x2032: "'"}).split())
    found = next((match for pattern in _REFUSALS if (match := pattern.search(opening))), None)
    return Finding(True, f"refuses: {quote(found.group())}") if found else Finding(False, "is no refusal")


JUDGES: dict[str, Judge] = {
    "contains": _contains(_same),
    "icontains": _contains(str.casefold),
    "contains-any": _contains_any(_same),
    "icontains-any": _contains_any(str.casefold),
    "contains-all": _contains_all(_same),
    "icontains-all": _contains_all(str.casefold),
    "starts-with": _starts_with,
    "regex": _regex,
    "word-count": _word_count,
    "is-refusal": _is_refusal,
}
