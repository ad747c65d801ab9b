"""Check the cases of a suite without a model: find cases whose assertions judge wrongly, or cannot judge.

- The `reference` of a case should pass the case's assertions.
- The answer that a training row gives to a case's prompt should pass them, too.
- The prompt alone should not pass them: then an answer that only repeats the question passes.

A limit: an answer that repeats a part of the question can still pass. "The capital of Canada is New York" passes the
assertion `icontains: Canada` of a case that asks which country has the capital Ottawa.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.core.scores import Score
from harness.core.suite import Assertion, Case, Message, Suite
from harness.core.wording import plural
from harness.scoring.judging import score
from harness.scoring.registry import ASSERTION_TYPES

SHOWN = 3
"""Number of cases that each kind of warning names. Further ones are only counted."""


def case_warnings(suite: Suite) -> tuple[str, ...]:
    """Return warnings about references and training answers that fail, and about prompts that pass.

    A reference that cannot be judged without a model, such as by its log-probability, is counted with the reason. Cases
    that are judged by code are not checked, because checking must be fast and must not run code.
    """
    by_text = _judged_by_text(suite)
    references = [_Judged(case, score(case, case.reference)) for case in by_text.cases if case.reference is not None]
    passing = filter(_is_passed_by_prompt, by_text.cases)
    return (
        *_warnings("cases whose reference fails", map(_reference_fails, _failed(references))),
        *_warnings("cases that a training row's answer fails", map(_row_fails, _failed(_taught(by_text)))),
        *_warnings("cases that their own prompt passes", map(_prompt_passes, passing)),
        *_unjudged(references, len(suite.cases) - len(by_text.cases)),
    )


def contradicted_by_rows(suite: Suite) -> tuple[str, ...]:
    """Return the ids of the cases that the answer of a training row to the very same prompt fails."""
    return tuple(dict.fromkeys(found.case.id for found in _failed(_taught(_judged_by_text(suite)))))


def _judged_by_text(suite: Suite) -> Suite:
    """Return the suite without the cases that are judged by code."""
    return replace(suite, cases=tuple(case for case in suite.cases if not any(map(_by_code, case.assertions))))


def _by_code(assertion: Assertion) -> bool:
    """Return whether the assertion is judged by the suite's code or by a metric of the library `evaluate`."""
    kind = ASSERTION_TYPES.get(assertion.type)
    return (kind is not None and kind.value.code is not None) or any(map(_by_code, assertion.children))


@dataclass(frozen=True)
class _Judged:
    """The score of a text that should pass a case. `row` is the line of the training row that holds the text."""

    case: Case
    score: Score
    row: int = 0

    @property
    def failing(self) -> str:
        """The first assertion that fails, with the reason."""
        return next((f"{c.assertion}: {c.reason}" for c in self.score.checks if not c.passed), "its score is too low")


def _failed(judged: Iterable[_Judged]) -> list[_Judged]:
    return [each for each in judged if not each.score.passed and not each.score.error]


def _taught(suite: Suite) -> Iterator[_Judged]:
    """Judge the answers of the training rows that hold exactly the conversation of a case, without system messages."""
    answers: dict[tuple[Message, ...], list[tuple[str, int]]] = {}
    lengths = {len(_spoken(case.messages)) for case in suite.cases}  # a row of 100,000 messages has too many beginnings
    for example in suite.examples:
        spoken = _spoken(example.messages)
        for at, message in enumerate(spoken):
            if message.role == "assistant" and at in lengths:
                answers.setdefault(spoken[:at], []).append((message.content, example.line))
    for case in suite.cases:
        for text, line in answers.get(_spoken(case.messages), ()):
            yield _Judged(case, score(case, text), line)


def _spoken(messages: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(message for message in messages if message.role != "system")


def _is_passed_by_prompt(case: Case) -> bool:
    """Return whether the prompt passes as an answer, in a case that requires anything other than an absence."""
    return any(map(_requires, case.assertions)) and score(case, case.prompt).passed


def _requires(assertion: Assertion) -> bool:
    """Return False for a negated assertion and for a set of these: most texts pass them, and should."""
    return any(map(_requires, assertion.children)) if assertion.children else not assertion.negated


# --- warnings ----------------------------------------------------------------------------------------------------


def _reference_fails(found: _Judged) -> str:
    return (
        f"{found.case.place}: the reference of {found.case.id} fails its own assertions ({found.failing}). "
        "Correct the reference or the assertions."
    )


def _row_fails(found: _Judged) -> str:
    return (
        f"{found.case.place}: the answer of training row {found.row} fails the case {found.case.id}, which has the "
        f"same prompt ({found.failing}). Correct the row or the assertions."
    )


def _prompt_passes(case: Case) -> str:
    return (
        f"{case.place}: the prompt of {case.id} passes its own assertions, so an answer that repeats the question "
        "passes. Add an assertion that the question fails."
    )


def _unjudged(references: Sequence[_Judged], by_code: int) -> Iterator[str]:
    for reason, count in Counter(each.score.error for each in references if each.score.error).items():
        yield f"{plural(count, 'reference')} could not be checked: {reason}."
    if by_code:
        yield f"{plural(by_code, 'case')} could not be checked: judged by code or by a metric of the library evaluate."


def _warnings(what: str, lines: Iterable[str]) -> list[str]:
    found = list(lines)
    return found[:SHOWN] + ([f"And {len(found) - SHOWN} more {what}."] if len(found) > SHOWN else [])
