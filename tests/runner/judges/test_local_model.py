"""Tests that a local judge chooses its verdicts by log-probabilities."""

from __future__ import annotations

import json
import math

import pytest

from harness.core.answers import Answer, Likelihood
from harness.runner.judges.local_model import _chosen

VERDICTS = ('{"pass": true}', '{"pass": false}')


def answer(*chances: float) -> Answer:
    return Answer("k", "", 1, True, choices=tuple(Likelihood(4 * math.log(chance), 4) for chance in chances))


@pytest.mark.parametrize(("chances", "passes", "score"), [((0.3, 0.1), True, 0.75), ((0.1, 0.4), False, 0.2)])
def test_the_more_likely_verdict_is_chosen(chances: tuple[float, float], passes: bool, score: float) -> None:
    """The judge's verdict is the more likely one, and its score is the share of the probability of accepting."""
    found = json.loads(_chosen(VERDICTS, answer(*chances)))
    assert (found["pass"], found["score"]) == (passes, pytest.approx(score))


def test_a_category_has_no_score() -> None:
    """Of several categories, the most likely one is chosen, without a score."""
    letters = tuple(f'{{"category": "{letter}"}}' for letter in "ABC")
    found = json.loads(_chosen(letters, answer(0.1, 0.2, 0.1)))
    assert found == {"category": "B", "reason": "its share of the probability is 50%"}


def test_without_log_probabilities_there_is_no_verdict() -> None:
    """If a log-probability is missing, the reply is no verdict, so that the answer has no score."""
    assert "pass" not in _chosen(VERDICTS, answer())
