"""The operations and filters of templates, by the rules of JavaScript and of Nunjucks 3.

Each raises `ValueError` for values with which the two languages might differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from jinja2 import ChainableUndefined, Undefined
from jinja2.runtime import LoopContext

from harness.core import javascript

PREFIX = "js_"
"""Begins the names of all filters here, so that none of Jinja2's own filters is used."""
LOOP = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})
INHERITED = frozenset(
    {"constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf"}
)
"""Names that every object of JavaScript has."""
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _refuse(what: str) -> ValueError:
    return ValueError(what)


def is_missing(value: Any) -> bool:
    return value is None or isinstance(value, Undefined)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def text(value: Any) -> str:
    """Return what an expression writes."""
    if isinstance(value, LoopContext):
        raise _refuse("loop as text")
    return "" if is_missing(value) else javascript.text(value)


def member(value: Any, name: Any, missing: Undefined) -> Any:
    """Return `value[name]`, or `missing` where JavaScript gives `undefined`."""
    if is_missing(value) or is_missing(name):
        return missing
    if isinstance(value, LoopContext):
        if name not in LOOP:
            raise _refuse(f"loop.{name}")
        return getattr(value, name)
    if isinstance(value, dict) and (isinstance(name, str) or _is_number(name)):
        key = javascript.text(name)
        if key in INHERITED or key.startswith("__"):
            raise _refuse(f"the name {key}")
        return value.get(key, missing)
    if isinstance(value, list | str) and _is_number(name) and name == int(name):
        is_inside = 0 <= name < (javascript.length(value) if isinstance(value, str) else len(value))
        if isinstance(value, str) and javascript.length(value) != len(value):
            raise _refuse("a single character of a text")
        return value[int(name)] if is_inside else missing
    if isinstance(value, list | str) and name == "length":
        return length(value)
    raise _refuse(f"the name {name}")


# --- operations --------------------------------------------------------------------------------------------------


def true(value: Any) -> bool:
    """Whether a value counts as true: all lists and mappings do, even empty ones."""
    if isinstance(value, list | dict):
        return True
    if _is_number(value):
        return bool(value) and not math.isnan(value)
    return not is_missing(value) and bool(value)


def eq(left: Any, right: Any) -> bool:
    """Whether `left == right`, which converts texts and truth values to numbers."""
    if is_missing(left) or is_missing(right):
        return is_missing(left) and is_missing(right)
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    return _as_number(left) == _as_number(right)


def _as_number(value: Any) -> float:
    if isinstance(value, str):
        stripped = javascript.trim(value)
        if not stripped:
            return 0.0
        if not DECIMAL.fullmatch(stripped):
            if re.match(r"0[xXoObB]|[+-]?Infinity", stripped):
                raise _refuse("a number in another notation")
            return math.nan
        return float(stripped)
    if isinstance(value, bool | int | float):
        return float(value)
    raise _refuse("a comparison of lists or mappings")


def _ordered(left: Any, right: Any) -> tuple[Any, Any]:
    if _is_number(left) and _is_number(right):
        return left, right
    if isinstance(left, str) and isinstance(right, str):
        return left.encode("utf-16-be"), right.encode("utf-16-be")
    raise _refuse("an order of other values than two numbers or two texts")


def lt(left: Any, right: Any) -> bool:
    left, right = _ordered(left, right)
    return bool(left < right)


def lteq(left: Any, right: Any) -> bool:
    left, right = _ordered(left, right)
    return bool(left <= right)


def is_in(left: Any, right: Any) -> bool:
    """Whether a list, a text or a mapping holds a value."""
    if isinstance(right, str) and isinstance(left, str):
        return left in right
    if isinstance(right, dict) and isinstance(left, str) and left not in INHERITED:
        return left in right
    if isinstance(right, list) and isinstance(left, str | int | float):
        same = (str,) if isinstance(left, str) else (bool,) if isinstance(left, bool) else (int, float)
        return any(
            isinstance(item, same) and isinstance(item, bool) == isinstance(left, bool) and item == left
            for item in right
        )
    raise _refuse("in")


def add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and (isinstance(right, str) or _is_number(right)):
        return left + javascript.text(right)
    if isinstance(right, str) and _is_number(left):
        return javascript.text(left) + right
    return _numbers(left, right, lambda a, b: a + b)


def sub(left: Any, right: Any) -> Any:
    return _numbers(left, right, lambda a, b: a - b)


def mul(left: Any, right: Any) -> Any:
    return _numbers(left, right, lambda a, b: a * b)


def _numbers(left: Any, right: Any, operation: Callable[[float, float], float]) -> float:
    if not (_is_number(left) and _is_number(right)):
        raise _refuse("arithmetic with other values than numbers")
    return operation(float(left), float(right))


def concat(left: Any, right: Any) -> str:
    """`left ~ right`; JavaScript writes "undefined" or "null" for a missing value."""
    if is_missing(left) or is_missing(right):
        raise _refuse("~ with a missing value")
    return text(left) + text(right)


def each(value: Any) -> list[Any]:
    """Return the values over which `for x in value` runs: those of a list, and none of anything else but a text."""
    if isinstance(value, str):
        raise _refuse("a loop over the characters of a text")
    return value if isinstance(value, list) else []


def pairs(value: Any) -> list[Any]:
    """Return the pairs over which `for a, b in value` runs: keys and values of a mapping, or a list of pairs."""
    if isinstance(value, dict):
        return [list(pair) for pair in javascript.items(value)]
    if isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        return value
    if is_missing(value):
        return []
    raise _refuse("a loop with two names")


# --- filters -----------------------------------------------------------------------------------------------------


def _text_only(value: Any) -> str:
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise _refuse("a filter for texts with another value")
    return value


def upper(value: Any) -> str:
    return _text_only(value).upper()


def lower(value: Any) -> str:
    return _text_only(value).lower()


def capitalize(value: Any) -> str:
    lowered = _text_only(value).lower()
    return lowered[:1].upper() + lowered[1:]


def title(value: Any) -> str:
    return " ".join(capitalize(word) for word in _text_only(value).split(" "))


def trim(value: Any) -> str:
    if is_missing(value):
        raise _refuse("trim of a missing value")
    return javascript.trim(_text_only(value))


def length(value: Any) -> int:
    if is_missing(value):
        return 0
    if isinstance(value, str):
        return javascript.length(value)
    if isinstance(value, list | dict):
        return len(value)
    raise _refuse("the length of a number")


def join(value: Any, between: Any = "") -> str:
    if not isinstance(value, list) or not isinstance(between, str):
        raise _refuse("join")
    return between.join(text(item) for item in value)


def default(value: Any, other: Any, also_if_false: Any = False) -> Any:
    if also_if_false:
        return value if true(value) else other
    return other if isinstance(value, Undefined) else value


def first(value: Any) -> Any:
    return _end(value, 0)


def last(value: Any) -> Any:
    return _end(value, -1)


def _end(value: Any, index: int) -> Any:
    if not isinstance(value, list):
        raise _refuse("first or last of other values than a list")
    return value[index] if value else ChainableUndefined()


def replace(value: Any, old: Any, new: Any) -> str:
    if not (isinstance(value, str) and isinstance(old, str) and isinstance(new, str) and old):
        raise _refuse("replace")
    return value.replace(old, new)


def dump(value: Any, indent: Any = 0) -> Any:
    if not isinstance(indent, int) or isinstance(indent, bool) or not 0 <= indent <= 10:
        raise _refuse("dump")
    return value if isinstance(value, Undefined) else javascript.to_json(value, indent)


def load(value: Any) -> Any:
    """promptfoo's own filter."""
    return javascript.parse_json(_text_only(value))


ARGUMENTS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("upper", "lower", "capitalize", "title", "trim", "length", "first", "last", "load"), (0, 0)),
    **dict.fromkeys(("default", "d"), (1, 2)),
    **dict.fromkeys(("join", "dump"), (0, 1)),
    "replace": (2, 2),
}
"""The filters that a template may name, and the least and greatest number of their arguments."""

FILTERS: dict[str, Callable[..., Any]] = {
    PREFIX + function.__name__: function
    for function in (
        upper, lower, capitalize, title, trim, length, join, default, first, last, replace, dump, load,
        true, eq, lt, lteq, add, sub, mul, concat, each, pairs,
    )
} | {
    f"{PREFIX}d": default,
    f"{PREFIX}in": is_in,
    f"{PREFIX}gt": lambda left, right: lt(right, left),
    f"{PREFIX}gteq": lambda left, right: lteq(right, left),
}  # fmt: skip
