"""Compares answers to the same prompts in different batches: equal texts, nearly equal log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.core.answers import Answer

ROUNDING = 1e-4
"""Largest allowed difference, relative or absolute, between the fp32 log-probabilities of an answer in two batches.

On some processors, the order in which a matrix product sums a row depends on the number of rows (Intel Xeon with
AVX-512 and AMX; AMD EPYC below four rows). A logit of the pocket model then differs by at most 6e-6, and the
log-probability of an answer is a sum over at most 60 tokens in these tests.
"""


def assert_same_answers(found: Sequence[Answer], expected: Sequence[Answer]) -> None:
    """Check that texts and token counts are equal, and that log-probabilities differ by at most `ROUNDING`.

    The answers' keys are not compared, since they depend on the model.
    """
    assert [_exact(answer) for answer in found] == [_exact(answer) for answer in expected]
    assert _totals(found) == pytest.approx(_totals(expected), rel=ROUNDING, abs=ROUNDING)


def _exact(answer: Answer) -> tuple[object, ...]:
    """Return the parts of an answer that rounding does not change, and the tokens of its log-probabilities."""
    counts = [one and one.tokens for one in (answer.likelihood, answer.reference, *answer.choices)]
    return answer.text, answer.tokens, answer.truncated, counts


def _totals(answers: Sequence[Answer]) -> list[float]:
    each = (one for answer in answers for one in (answer.likelihood, answer.reference, *answer.choices))
    return [one.total for one in each if one]
