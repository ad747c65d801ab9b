"""Tests that a suite can use every registered assertion type."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.scoring import ASSERTION_TYPES, Need
from harness.scoring.registry import WRITABLE
from tests.support.suite_texts import suite

VALUES: dict[str, Any] = {"word-count": 3, "evaluate": "accuracy", "is-json": None, "contains-json": None,
                          "is-refusal": None, "python": "mine:judge", "assert-set": None, "perplexity": None,
                          "reference-perplexity": None}  # fmt: skip


@pytest.mark.parametrize("kind", WRITABLE)
def test_every_type_can_be_written(kind: str) -> None:
    """Every assertion type, and every negated type, can be used in a suite."""
    row = ASSERTION_TYPES[kind.removeprefix("not-")]
    test: dict[str, Any] = {"type": kind, "value": VALUES.get(row.name, "a")}
    if Need.ASSERTIONS in row.needs:
        test["assert"] = [{"type": "contains", "value": "a"}]
    if row.threshold and row.threshold.least is not None:
        test["threshold"] = row.threshold.least
    case = {"prompt": "p", "reference": "a", "choices": ["a", "b"], "assert": [test]}
    (found,) = suite(json.dumps({"tests": [case]}), mine_dot_py="def judge(): ...").cases
    assert found.assertions[0].name == kind
