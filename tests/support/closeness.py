"""Compares answers generated in differently composed batches: texts must be equal, log-probabilities nearly equal."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.core.answers import Answer

ROUNDING = 1e-4
"""Largest allowed difference, relative or absolute, of an fp32 log-probability between two compositions of a batch.

Some processors sum a row of a matrix product in an order that depends on the number of rows (Intel Xeon with AVX-512
and AMX; AMD EPYC below four rows). A logit of the pocket model then differs by at most 6e-6, and the log-probability of
an answer is a sum over at most 60 tokens in these tests.
"""


def assert_same_answers(found: Sequence[Answer], expected: Sequence[Answer]) -> None:
    """Check that texts and token counts are equal, and log-probabilities within `ROUNDING`.

    Keys are not compared, since they depend on the model.
    """
    assert [_exact(answer) for answer in found] == [_exact(answer) for answer in expected]
    assert _totals(found) == pytest.approx(_totals(expected), rel=ROUNDING, abs=ROUNDING)


def _exact(answer: Answer) -> tuple[object, ...]:
    """The parts of an answer that do not depend on rounding, including which log-probabilities exist."""
    counts = [one and one.tokens for one in (answer.likelihood, answer.reference, *answer.choices)]
    return answer.text, answer.tokens, answer.truncated, counts


def _totals(answers: Sequence[Answer]) -> list[float]:
    each = (one for answer in answers for one in (answer.likelihood, answer.reference, *answer.choices))
    return [one.total for one in each if one]
