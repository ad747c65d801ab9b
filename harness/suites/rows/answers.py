"""Choose among the answers of a row by what it says about each: which are right, and how good they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.analysis.contamination import words
from harness.core.yaml import shown
from harness.suites.rows.columns import BAD_IF_TRUE, GOOD_IF_TRUE, SCORES, is_bad, marks, truth
from harness.suites.rows.records import RowError

NUMBER_OF_ONE = frozenset({"correct", "answer", "right", "label"})
TEXTS = ("text", "answer", "value", "content", "output", "response")
"""Keys of the text of an answer that is a mapping."""
RANKS = frozenset({"rank", "ranks", "ranking"})
"""Words in the names of numbers of which the highest may be the worst."""


def rates_answers(name: str, cells: Mapping[str, Any]) -> bool:
    """Whether a column says which of several answers is right, or how good each is."""
    value = cells.get(name)
    if isinstance(value, list):
        is_mark = marks(name) in GOOD_IF_TRUE | BAD_IF_TRUE or (value and all(isinstance(each, bool) for each in value))
        return bool(is_mark) or not SCORES.isdisjoint(words(name.replace("_", " ")))
    return name.strip().casefold().removesuffix("_index").removesuffix("_idx") in NUMBER_OF_ONE


def of_answers(name: str, value: Any) -> Any:
    """Return the texts of answers that are mappings, the best first and without those that are marked as bad.

    Any other value is returned as it is.

    Raises:
        RowError: all of them are marked as bad, or it is not known which of them is the best.
    """
    if isinstance(value, dict):
        if isinstance(value.get("text"), list):
            return _best(name, _as_rows(value))
        if isinstance(value.get("text"), str) and (which := _bad(value)):
            raise RowError(f"{name}: {shown(which)} marks a bad answer", "Remove this row.")
        return value
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        return value
    key = next((key for key in TEXTS if all(isinstance(each.get(key), str) for each in value)), None)
    if key is None:
        return value
    return _best(name, [{**{k: v for k, v in each.items() if k != key}, "text": each[key]} for each in value])


def _as_rows(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a mapping of lists, as in SQuAD, as a list of mappings."""
    count = len(value["text"])
    lists = {key: each for key, each in value.items() if isinstance(each, list) and len(each) == count}
    return [{key: each[i] for key, each in lists.items()} for i in range(count)]


def _bad(answer: Mapping[str, Any]) -> str | None:
    """Return the key that marks an answer as a bad one."""
    for key, value in answer.items():
        if key != "text" and (is_bad(key, value) or (marks(key) == "label" and truth(value) is False)):
            return key
    return None


def _is_good(answer: Mapping[str, Any]) -> bool:
    return any(marks(key) in GOOD_IF_TRUE and truth(value) is True for key, value in answer.items())


def _best(name: str, answers: list[dict[str, Any]]) -> list[Any]:
    left = [answer for answer in answers if not _bad(answer)]
    if answers and not left:
        which = _bad(answers[0])
        raise RowError(f"{name}: {shown(which)} marks every answer as bad", "Write a right one, or remove this row.")
    left = [answer for answer in left if _is_good(answer)] or left
    if len({str(answer["text"]) for answer in left}) > 1:
        _check_known(name, left)
    for key in _scores(left):
        best = max(float(answer[key]) for answer in left)
        if best <= 0:
            what = f"{name}: no answer has a {shown(key)} above 0"
            raise RowError(what, "Write a right one, or remove this row.")
        left = [answer for answer in left if float(answer[key]) == best]
    return [answer["text"] for answer in left]


def _check_known(name: str, answers: list[dict[str, Any]]) -> None:
    """Refuse several answers if a key may say which of them is the best, and it is not known how."""
    for key in dict.fromkeys(key for answer in answers for key in answer if key != "text"):
        values = [answer.get(key) for answer in answers]
        is_mark = marks(key) not in GOOD_IF_TRUE | BAD_IF_TRUE and {True, False} <= {
            value for value in values if isinstance(value, bool)
        }
        is_rating = not SCORES.isdisjoint(words(key.replace("_", " ")))
        are_scores = key in _scores(answers) or len(set(map(str, values))) == 1
        if is_mark or (is_rating and not are_scores):
            what = f"{name}: has several answers, and {shown(key)} may say which of them is right"
            raise RowError(what, "Write the right one as the answer.")


def _scores(answers: list[dict[str, Any]]) -> list[str]:
    """Return the keys with a number for each answer of which the highest is the best."""
    return [
        key
        for key in dict.fromkeys(key for answer in answers for key in answer if key != "text")
        if not SCORES.isdisjoint(parts := words(key.replace("_", " ")))
        and RANKS.isdisjoint(parts)
        and all(isinstance(answer.get(key), int | float) for answer in answers)
    ]
