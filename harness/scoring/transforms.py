"""Apply promptfoo's `transform` to an answer, where it is of a plain kind.

A plain transform is `output` or `JSON.parse(output)`, followed by names, numbers in brackets, `trim()`,
`toLowerCase()`, `toUpperCase()` and `split("...")[n]`, such as `JSON.parse(output).city.trim()`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from harness.core import javascript

WHOLE = re.compile(r"\s*(?:return\s+)?(?P<base>output|JSON\.parse\(\s*output\s*\))(?P<steps>.*?)\s*;?\s*", re.DOTALL)
STEP = re.compile(
    r"\s*(?:\.(?P<method>trim|toLowerCase|toUpperCase)\(\)"
    r"""|\.split\(\s*(?P<quote>['"])(?P<between>[^'"\\]+)(?P=quote)\s*\)\[(?P<part>\d{1,6})\]"""
    r"|\.(?P<name>[A-Za-z_]\w*)(?!\()\b"
    r"|\[(?P<index>\d{1,6})\]"
    r"""|\[(?P<quoted>['"])(?P<key>[^'"\\]+)(?P=quoted)\])""",
    re.ASCII,
)
METHODS = {"trim": javascript.trim, "toLowerCase": str.lower, "toUpperCase": str.upper}


class TransformFailedError(ValueError):
    """A transform has no value for an answer."""


def is_plain(expression: Any) -> bool:
    """Whether a transform is of a plain kind, and can give a value for an answer that is a text."""
    if not isinstance(expression, str) or (parsed := _parsed(expression)) is None:
        return False
    is_json, steps = parsed
    # A member of a text, such as output.text, is for providers whose answers are no texts.
    return is_json or not any("name" in step or "index" in step or "key" in step for step in steps)


def transformed(text: str, expression: str) -> str:
    """Return an answer after a plain transform. A value that is no text becomes JSON.

    Raises:
        TransformFailedError: the answer is not JSON, or a part of it is missing.
    """
    parsed = _parsed(expression)
    if parsed is None:
        raise TransformFailedError(f"the transform {expression!r} is not supported")
    is_json, steps = parsed
    try:
        value = javascript.parse_json(text) if is_json else text
        for step in steps:
            value = _after(value, step)
        if value is None:
            raise TransformFailedError("it has no value")
        return value if isinstance(value, str) else javascript.to_json(value)
    except TransformFailedError as problem:
        raise TransformFailedError(f"the transform {expression.strip()} fails: {problem}") from None
    except (ValueError, RecursionError):
        raise TransformFailedError(f"the transform {expression.strip()} fails: the answer is not JSON") from None


def _after(value: Any, step: dict[str, str]) -> Any:
    if "method" in step or "between" in step:
        if not isinstance(value, str):
            raise TransformFailedError("a part of the answer is not a text")
        return METHODS[step["method"]](value) if "method" in step else _item(value.split(step["between"]), step["part"])
    if "index" in step:
        return _item(value, step["index"])
    if not isinstance(value, dict):
        raise TransformFailedError("a part of the answer has no names")
    return value.get(step.get("name") or step["key"])


def _item(value: Any, index: str) -> Any:
    if not isinstance(value, list):
        raise TransformFailedError("a part of the answer is not a list")
    return value[int(index)] if int(index) < len(value) else None


@lru_cache(maxsize=256)
def _parsed(expression: str) -> tuple[bool, tuple[dict[str, str], ...]] | None:
    """Return whether the transform reads JSON, and its steps; None if it is not plain."""
    whole = WHOLE.fullmatch(expression)
    if whole is None:
        return None
    steps, at, text = [], 0, whole["steps"]
    while at < len(text):
        step = STEP.match(text, at)
        if step is None:
            return None
        steps.append({name: found for name, found in step.groupdict().items() if found is not None})
        at = step.end()
    return whole["base"] != "output", tuple(steps)
