"""Write values as JavaScript does, in which promptfoo runs: numbers, lists, JSON, and what counts as white space."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

SPACE = "\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200B)))
"""The characters that `trim()` removes (ECMA-262, WhiteSpace and LineTerminator)."""


MAX_DEPTH = 64
"""Levels of lists and mappings that are written; documents have fewer."""


def trim(text: str) -> str:
    """Remove white space from both ends."""
    return text.strip(SPACE)


def number(value: float) -> str:
    """Return a number as `String(value)` gives it (ECMA-262, Number::toString)."""
    as_float = float(value)
    if math.isnan(as_float) or math.isinf(as_float):
        return "NaN" if math.isnan(as_float) else ("Infinity" if as_float > 0 else "-Infinity")
    if as_float == 0:
        return "0"
    sign = "-" if as_float < 0 else ""
    digits, exponent = _shortest(abs(as_float))
    return sign + _placed(digits, exponent)


def _shortest(value: float) -> tuple[str, int]:
    """Return the fewest digits that identify a positive number, and n in 0.DIGITS * 10^n."""
    mantissa, _, power = float.__repr__(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    all_digits = whole + fraction
    stripped = all_digits.lstrip("0")
    exponent = len(whole) - (len(all_digits) - len(stripped)) + int(power or 0)
    return stripped.rstrip("0"), exponent


def _placed(digits: str, exponent: int) -> str:
    count = len(digits)
    if count <= exponent <= 21:
        return digits + "0" * (exponent - count)
    if 0 < exponent <= 21:
        return f"{digits[:exponent]}.{digits[exponent:]}"
    if -6 < exponent <= 0:
        return f"0.{'0' * -exponent}{digits}"
    power = f"e{'+' if exponent > 0 else '-'}{abs(exponent - 1)}"
    return digits[0] + (f".{digits[1:]}" if count > 1 else "") + power


def text(value: Any) -> str:
    """Return a value as `String(value)` gives it, but nothing as an empty text, as a template does."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list):
        return ",".join(text(item) for item in value)
    return "[object Object]"


def items(mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return keys and values in the order of a JavaScript object: first keys that are indices, in ascending order."""
    indices = sorted((key for key in mapping if _is_index(key)), key=int)
    return [(key, mapping[key]) for key in (*indices, *(key for key in mapping if not _is_index(key)))]


def _is_index(key: str) -> bool:
    is_number = key.isascii() and key.isdecimal() and len(key) <= 10
    return is_number and (key == "0" or key[0] != "0") and int(key) < 2**32 - 1


def to_json(value: Any, indent: int = 0) -> str:
    """Return a value as `JSON.stringify(value, null, indent)` gives it.

    Raises RecursionError if it is nested deeper than a document may be.
    """
    return _json(value, indent, 0)


def _json(value: Any, indent: int, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False)
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        written = text(value)
        return "null" if written in ("NaN", "Infinity", "-Infinity") else written
    if isinstance(value, list):
        return _block("[]", [_json(item, indent, depth + 1) for item in value], indent, depth)
    colon = ": " if indent else ":"
    parts = [f"{_json(key, 0, 0)}{colon}{_json(item, indent, depth + 1)}" for key, item in items(value)]
    return _block("{}", parts, indent, depth)


def _block(brackets: str, parts: list[str], indent: int, depth: int) -> str:
    if not indent or not parts:
        return f"{brackets[0]}{','.join(parts)}{brackets[1]}"
    inner, outer = "\n" + " " * indent * (depth + 1), "\n" + " " * indent * depth
    return f"{brackets[0]}{inner}{f',{inner}'.join(parts)}{outer}{brackets[1]}"


def replace_first(where: str, old: str, new: str) -> str:
    """Return `where.replace(old, new)`: the first occurrence is replaced, and `$` in `new` has its special meanings."""
    before, found, after = where.partition(old)
    if not found:
        return where
    if "$" not in new:
        return before + new + after
    meaning = {"$": "$", "&": old, "`": before, "'": after}
    parts, i = [], 0
    while i < len(new):
        if new[i] == "$" and i + 1 < len(new) and new[i + 1] in meaning:
            parts.append(meaning[new[i + 1]])
            i += 2
        else:
            parts.append(new[i])
            i += 1
    return before + "".join(parts) + after


def length(value: str) -> int:
    """Return the length of a text in UTF-16 units, as `value.length` gives it."""
    return len(value) + sum(character > "\uffff" for character in value)


def parse_json(written: str) -> Any:
    """Return the value of a JSON text, as `JSON.parse` does; raise ValueError if it is not JSON."""
    try:
        return json.loads(written.strip(" \t\n\r"), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
