"""Suites as texts, for tests: files are held in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.errors import SuiteError
from harness.records import Suite
from harness.suites import parse_suite

ROW = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}'
CASE = "- {prompt: Hi, assert: [{type: equals, value: Ho}]}"


def files(**texts: str) -> Callable[[str], str]:
    """A reader of files held in memory; a name's dot is written as `_dot_`."""
    known = {name.replace("_dot_", "."): text for name, text in texts.items()}

    def read(name: str) -> str:
        if name not in known:
            raise FileNotFoundError(name)
        return known[name]

    return read


def suite(text: str, **texts: str) -> Suite:
    return parse_suite(text, "suite.yaml", files(**texts))


def case(text: str) -> Suite:
    """A suite of one case, which begins in line 2, column 3."""
    lines = text.strip().splitlines()
    return suite("tests:\n- " + "\n  ".join(lines))


def refusal(text: str, **texts: str) -> str:
    with pytest.raises(SuiteError) as caught:
        suite(text, **texts)
    return str(caught.value)
