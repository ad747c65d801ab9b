"""Tests of the messages that are made of rows."""

from __future__ import annotations

from typing import Any

import pytest

from harness.suites.rows.columns import layout_of
from harness.suites.rows.conversations import Counts, conversations_of
from harness.suites.rows.records import USUAL, RowError

MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def turns(row: dict[str, Any], counts: Counts | None = None) -> list[list[str]]:
    lists = [name for name, value in row.items() if isinstance(value, list)]
    layout = layout_of(list(row), USUAL, lists=lists)
    found = conversations_of(row, layout, USUAL, counts or Counts())
    return [[f"{m.role[0]}:{m.content}" for m in messages] for messages in found]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": " a ", "completion": " b"}, [["u: a ", "a: b"]]),
        ({"prompt": 4, "completion": True}, [["u:4", "a:true"]]),
        ({"instruction": "", "input": "a", "output": "b"}, [["u:a", "a:b"]]),
        ({"question": "a", "context": None, "passage": "p", "answer": "b"}, [["u:a\n\np", "a:b"]]),
        ({"questions": ["a", "c", "a", " "], "answer": "b"}, [["u:a", "a:b"], ["u:c", "a:b"]]),
        ({"prompt": MESSAGES[:1], "context": "p", "completion": MESSAGES[1:]}, [["u:a\n\np", "a:b"]]),
        ({"history": MESSAGES, "prompt": "c", "completion": "d"}, [["u:a", "a:b", "u:c", "a:d"]]),
        ({"system": "s", "messages": [{"role": "system", "content": "s"}, *MESSAGES]}, [["s:s", "u:a", "a:b"]]),
        ({"messages": [{"role": "system", "content": ""}, *MESSAGES]}, [["u:a", "a:b"]]),
        (
            {"history": [["x", "y"]], "messages": [{"role": "developer", "content": "s"}, *MESSAGES]},
            [["s:s", "u:x", "a:y", "u:a", "a:b"]],
        ),
        ({"prompt": "", "completion": " "}, []),
        ({"prompt": "a", "completion": '{"text": "b"}'}, [["u:a", 'a:{"text": "b"}']]),
    ],
)
def test_messages(row: dict[str, Any], expected: list[list[str]]) -> None:
    """Rows become messages; a context is put below the question, and system message and earlier turns before it."""
    assert turns(row) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": ""}, "has no answer"),
        ({"prompt": [], "completion": "", "messages": []}, "messages: is empty"),
        ({"messages": [7]}, "message 1 is not a mapping"),
        ({"messages": [{"content": "a"}]}, "message 1 has no role"),
        ({"messages": [{"role": 7, "content": "a"}]}, "message 1 has the unknown role 7"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "holds something other than text"),
        ({"messages": [{"role": "assistant", "content": "a", "train": False}]}, 'excluded from training by "train"'),
        ({"messages": MESSAGES[1:]}, "message 1 is from assistant, not from user"),
        ({"prompt": "a", "completion": "b", "context": {"title": "c"}}, "context: expected text, found a mapping"),
        ({"prompt": "a", "chosen": [{"role": "user", "content": "x"}]}, "message 2 is from user"),
        ({"prompt": "a", "completion": {"a": "x" * 400}}, "completion: expected text"),
    ],
)
def test_rows_that_cannot_be_used(row: dict[str, Any], message: str) -> None:
    """A row that is incomplete, or holds something other than text, is refused with a remedy."""
    with pytest.raises(RowError) as caught:
        turns(row)
    assert message in caught.value.message
    assert caught.value.remedy


def test_what_is_left_out_is_counted() -> None:
    """Columns and keys of messages that hold something and are not used are counted; empty ones are not."""
    counts = Counts()
    turns(
        {"messages": [{**MESSAGES[0], "name": "x", "id": None}, MESSAGES[1]], "source": "y", "tags": [], "n": 0}, counts
    )
    assert (dict(counts.columns), dict(counts.message_keys)) == ({"source": 1, "n": 1}, {"name": 1})
