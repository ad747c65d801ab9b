"""Assertion types about JSON: whether an answer is, or contains, JSON that fits a JSON Schema."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from harness.core.errors import SuiteError
from harness.core.suite import Assertion
from harness.scoring.assertion_type import AssertionType, Value
from harness.scoring.assertion_types.text import search
from harness.scoring.findings import CannotScoreError, Evidence, Finding, quote
from harness.scoring.schemas import check_keywords, fits, known_validator, unknown_format
from harness.scoring.values import check_pattern, plain, value_from_code

SECONDS = 2.0
"""Processor time limit for one answer's JSON, because some schemas take nearly forever to validate."""
MAX_DIGITS = 300
"""Maximum length of an integer that is read exactly; a longer one becomes a float, because exact reading is slow."""


# --- reading -----------------------------------------------------------------------------------------------------


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= MAX_DIGITS else float(text)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_constant=_no_constant)


def parse(text: str) -> Any:
    """Parse a text as JSON; raises ValueError with a message for the report."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as problem:
        raise ValueError(f"is not JSON: {problem.msg} at character {problem.pos + 1}") from None
    except ValueError as problem:
        raise ValueError(f"is not JSON: {problem}") from None
    except RecursionError:
        raise ValueError("is not JSON that can be read: nested too deep") from None


_BEGINNING = re.compile(r'\{\s*["}]')


def objects(text: str) -> Iterator[Any]:
    """Yield every outermost JSON object in a text, in order; raises `CannotScoreError` if that takes too long."""
    position, last = 0, _deadline()
    while begin := _BEGINNING.search(text, position):
        last()
        try:
            value, position = _DECODER.raw_decode(text, begin.start())
            yield value
        except RecursionError:
            raise CannotScoreError("nested too deep to be read") from None
        except ValueError:
            position = begin.start() + 1


def _deadline() -> Callable[[], None]:
    """Return a function that raises `CannotScoreError` when the time limit has passed."""
    end = time.process_time() + SECONDS

    def check() -> None:
        if time.process_time() > end:
            raise CannotScoreError(f"no verdict within {SECONDS:g} s")

    return check


# --- equality of JSON values -------------------------------------------------------------------------------------


def equal(value: Any, found: Any) -> bool:
    """Whether two JSON values are equal: 1 equals 1.0, but not true. The recursion is at most as deep as `value`."""
    if isinstance(value, dict):
        same = isinstance(found, dict) and value.keys() == found.keys()
        return same and all(equal(value[name], found[name]) for name in value)
    if isinstance(value, list):
        return isinstance(found, list) and len(value) == len(found) and all(map(equal, value, found))
    return isinstance(value, bool) is isinstance(found, bool) and bool(value == found)


def _key(value: Any) -> Any:
    """Convert a JSON value to a hashable value. Results are equal exactly if the JSON values are equal."""
    if isinstance(value, dict):
        return ("object", frozenset((name, _key(inner)) for name, inner in value.items()))
    if isinstance(value, list):
        return ("array", tuple(map(_key, value)))
    return (isinstance(value, bool), value)


# --- schemas -----------------------------------------------------------------------------------------------------
# jsonschema searches patterns with `re`, which can take nearly forever, compares every pair of array items, and
# downloads the schema that a `$ref` names. The functions below replace jsonschema's keywords: patterns have a time
# limit, items are hashed, nothing is downloaded, and the whole validation has a time limit.


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ARG001
    from jsonschema import ValidationError

    if isinstance(instance, str) and search(pattern, instance) is None:
        yield ValidationError(f"{quote(instance)} does not match {quote(pattern)}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ARG001
    if not isinstance(instance, dict):
        return
    for pattern, inner in patterns.items():
        for name in instance:
            if search(pattern, name) is not None:
                yield from validator.descend(instance[name], inner, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [k for k in instance if k not in known and not any(search(p, k) is not None for p in patterns)]
    if allowed is False and extra:
        yield ValidationError(f"{quote(extra)} is not among the properties")
    elif allowed is not False:
        for name in extra:
            yield from validator.descend(instance[name], allowed, path=name)


def _unique_items(validator: Any, unique: Any, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ARG001
    from jsonschema import ValidationError

    if unique and isinstance(instance, list) and len(set(map(_key, instance))) < len(instance):
        yield ValidationError("has items that are not unique")


_KEYWORDS = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}


class _TimeLimit:
    """Ends a validation that takes too long. jsonschema gets it as the format checker, which every keyword receives."""

    def __init__(self, schema: Any) -> None:
        self.check_time, self.schema = _deadline(), schema

    def check(self, instance: Any, name: str) -> None:
        """Raise `FormatError` if a value does not fit a format."""
        from jsonschema.exceptions import FormatError

        if not fits(name, instance):
            raise FormatError(f"{quote(instance)} is no {name}")


def _time_limited(name: str, keyword: Any) -> Any:
    def limited(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        validator.format_checker.check_time()
        # jsonschema's unevaluatedProperties searches patterns with `re`, which the replaced keywords avoid.
        if name == "unevaluatedProperties" and "patternProperties" in json.dumps(validator.format_checker.schema):
            raise CannotScoreError("a schema with unevaluatedProperties cannot also use patternProperties here")
        return keyword(validator, value, instance, schema)

    return limited


@cache
def _dialect(known: Any) -> Any:
    from jsonschema.validators import extend

    return extend(
        known, {name: _time_limited(name, _KEYWORDS.get(name, word)) for name, word in known.VALIDATORS.items()}
    )


def _validator(schema: Any) -> Any:
    from jsonschema_specifications import REGISTRY

    return _dialect(known_validator(schema))(schema, registry=REGISTRY, format_checker=_TimeLimit(schema))


def misfit(schema: Any, value: Any) -> str | None:
    """Return why a value is not valid under a schema, or None; raises `CannotScoreError` if that cannot be decided."""
    from jsonschema.exceptions import UnknownType
    from referencing.exceptions import Unresolvable

    try:
        found = next(_validator(schema).iter_errors(value), None)
    except Unresolvable as problem:
        raise CannotScoreError(f"the schema refers to {quote(str(problem.ref))}, which is not in it") from None
    except RecursionError:
        raise CannotScoreError("nested too deep, or a schema that refers to itself without end") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, UnknownType) as problem:
        words = str(problem).partition("\n")[0]
        raise CannotScoreError(f"the schema cannot be applied: {words}") from None
    if found is None:
        return None
    where = f" at {quote(found.json_path)}" if found.path else ""
    return (found.message if len(found.message) <= 120 else f"{found.message[:117]}...") + where


def _is_json(evidence: Evidence, assertion: Assertion) -> Finding:
    try:
        value = parse(evidence.text)
    except ValueError as problem:
        return Finding(False, str(problem))
    if assertion.value is None:
        return Finding(True, "is JSON")
    wrong = misfit(assertion.value, value)
    return Finding(wrong is None, f"does not fit the schema: {wrong}" if wrong else "is JSON that fits the schema")


def _contains_json(evidence: Evidence, assertion: Assertion) -> Finding:
    wrong: str | None = None
    for value in objects(evidence.text):
        if assertion.value is None:
            return Finding(True, f"contains {quote(value)}")
        wrong = misfit(assertion.value, value)
        if wrong is None:
            return Finding(True, f"contains {quote(value)}, which fits the schema")
    return Finding(False, f"its JSON does not fit the schema: {wrong}" if wrong else "contains no JSON object")


# --- values ------------------------------------------------------------------------------------------------------


def _schema(value: Any) -> Any:
    """Accept a JSON Schema as a mapping, a truth value or a text, or no value, with which any JSON holds."""
    from harness.core.yaml import parse_yaml

    if isinstance(value, str) and value.strip():
        try:
            value = parse_yaml(value, "value", SuiteError).value
        except SuiteError as problem:
            raise ValueError(f"has a JSON Schema that cannot be read: {problem.message}") from None
    if value is None or value == "":
        return None
    if not isinstance(value, dict | bool):
        raise ValueError("takes a JSON Schema as its value, or none\nWrite value: {type: object, required: [...]}")
    schema = plain(value)
    _check_schema(schema)
    return schema


def _check_schema(schema: Any) -> None:
    from jsonschema import FormatChecker, SchemaError

    try:
        # Formats are not checked: jsonschema would compile patterns with `re`, but they are searched with `regex`.
        known_validator(schema).check_schema(schema, FormatChecker(formats=()))
    except RecursionError:
        raise ValueError("has a JSON Schema that is nested too deep") from None
    except SchemaError as problem:
        raise ValueError(f"has an invalid JSON Schema: {problem.message[:120]} at {problem.json_path}") from None
    check_keywords(schema)
    words: set[str] = set()
    _check_words(schema, words)
    if {"unevaluatedProperties", "patternProperties"} <= words:
        raise ValueError("cannot have unevaluatedProperties together with patternProperties\nUse additionalProperties.")


def _check_words(part: Any, words: set[str]) -> None:
    """Collect the schema's keywords; raise ValueError for references to other files and for invalid patterns."""
    from harness.core.yaml import shown

    if isinstance(part, list):
        for item in part:
            _check_words(item, words)
    if not isinstance(part, dict):
        return
    words.update(part)
    for name in ("$ref", "$dynamicRef", "$recursiveRef"):
        if isinstance(part.get(name), str) and not part[name].startswith("#"):
            raise ValueError(f"refers to {shown(part[name])}, which is not fetched\nCopy it to $defs in this schema.")
    patterns = part.get("patternProperties")
    for pattern in (part.get("pattern"), *(patterns if isinstance(patterns, dict) else ())):
        if isinstance(pattern, str):
            check_pattern(pattern)
    for inner in part.values():
        _check_words(inner, words)


def _unsupported(value: Any) -> str:
    name = unknown_format(value)
    return f"with the format {quote(name)}" if name else value_from_code(value)


SCHEMA = Value(_schema, optional=True, has_variables=False, unsupported=_unsupported)
"""The value of JSON assertions. `{{name}}` in a schema does not stand for a variable."""
PACKAGES = ("jsonschema", "regex")
TYPES = (
    AssertionType(
        "is-json", SCHEMA, _is_json, "is JSON; with a value, JSON that fits this JSON Schema", packages=PACKAGES
    ),
    AssertionType(
        "contains-json",
        SCHEMA,
        _contains_json,
        "contains a JSON object; with a value, one that fits this JSON Schema",
        packages=PACKAGES,
    ),
)
