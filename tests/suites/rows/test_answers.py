"""Tests of the choice among several answers of a row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.suites.rows import read_rows

ROME, PARIS = "Rome", "Paris"


def trained(row: dict[str, Any]) -> str:
    """Return the answer that is trained, or what is said against the row."""
    found = read_rows(json.dumps({"question": "Capital of France?", **row}).encode(), "rows.jsonl")
    return found.mistakes[0].message if found.mistakes else found.examples[0].messages[-1].content


def both(first: dict[str, Any], second: dict[str, Any], key: str = "text") -> dict[str, Any]:
    return {"answers": [{key: ROME, **first}, {key: PARIS, **second}]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (both({"is_correct": False}, {"is_correct": True}), PARIS),
        (both({"isCorrect": 0}, {"isCorrect": 1}, "answer"), PARIS),
        (both({"selected": False}, {"selected": True}), PARIS),
        (both({}, {"accepted": True}), PARIS),
        (both({"score": 0}, {"score": 1}), PARIS),
        (both({"score": 0.2}, {"score": 0.7}), PARIS),
        (both({"wrong": True}, {}), PARIS),
        (both({"label": 0}, {"label": 1}), PARIS),
        (both({"verdict": "incorrect"}, {"verdict": "fine"}), PARIS),
        ({"answers": {"text": [ROME, PARIS], "is_correct": [False, True]}}, PARIS),
        ({"answers": {"text": [PARIS, ROME], "answer_start": [1, 2]}}, PARIS),
        (both({"is_correct": False}, {"is_correct": "no"}), 'answers: "is_correct" marks every answer as bad'),
        (both({"score": 0}, {"score": 0}), 'answers: no answer has a "score" above 0'),
        (both({"rank": 0}, {"rank": 1}), 'answers: has several answers, and "rank" may say which of them is right'),
        (both({"kept": False}, {"kept": True}), 'answers: has several answers, and "kept" may say'),
        (both({"score": None}, {"score": 1}), 'answers: has several answers, and "score" may say'),
        ({"answers": [ROME, PARIS], "is_correct": [False, True]}, 'has several answers, and "is_correct" may say'),
        ({"answers": [ROME], "is_correct": [False]}, '"is_correct" is [false], which marks a bad answer'),
        ({"answer": {"text": ROME, "correct": False}}, 'answer: "correct" marks a bad answer'),
        ({"answer": ROME, "correct": 0}, '"correct" is 0, which marks a bad answer'),
        ({"answer": ROME, "accepted": "no"}, '"accepted" is no, which marks a bad answer'),
        ({"answer": ROME, "status": "rejected"}, '"status" is rejected, which marks a bad answer'),
        ({"answer": PARIS, "correct": 1, "label": 0}, PARIS),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ROME, "correct": False}]},
            'message 2 has "correct", which marks a bad answer',
        ),
    ],
)
def test_no_answer_that_is_marked_as_bad_is_trained(row: dict[str, Any], expected: str) -> None:
    """Of several answers, the right or best one is trained; if there is none or it is not known, the row is refused."""
    assert trained(row).startswith(expected)
