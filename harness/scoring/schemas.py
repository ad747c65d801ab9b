"""JSON Schema as Ajv has it, with which promptfoo validates: keywords of each draft, formats, and `nullable`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache
from typing import Any

DRAFT_07 = "http://json-schema.org/draft-07/schema#"
ANNOTATIONS = frozenset({
    "$schema", "$id", "$comment", "$defs", "$vocabulary", "definitions", "title", "description", "default",
    "deprecated", "readOnly", "writeOnly", "examples", "contentMediaType", "contentEncoding", "contentSchema",
    "then", "else",
})  # fmt: skip
"""Keywords that every draft has here, and that jsonschema does not count as its own."""
LATER = frozenset({"minContains", "maxContains", "$anchor", "$dynamicAnchor", "$recursiveAnchor"})
"""Keywords since draft 2019-09 that jsonschema reads within others."""
MAPPINGS = ("properties", "patternProperties", "definitions", "$defs", "dependentSchemas", "dependencies")
SCHEMAS = (
    *("not", "if", "then", "else", "items", "additionalItems", "additionalProperties", "propertyNames", "contains"),
    *("unevaluatedItems", "unevaluatedProperties", "contentSchema", "allOf", "anyOf", "oneOf", "prefixItems"),
)
"""Keywords with a schema or a list of schemas."""


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas in it, but no values such as those of `enum` and `default`."""
    waiting = [schema]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            yield found
            waiting += [found[key] for key in SCHEMAS if key in found]
            waiting += [
                inner for key in MAPPINGS if isinstance(named := found.get(key), dict) for inner in named.values()
            ]


@cache
def _draft_07() -> Any:
    from jsonschema import Draft7Validator
    from jsonschema.validators import create

    # Ajv also applies the keywords beside a $ref.
    return create(
        meta_schema=Draft7Validator.META_SCHEMA,
        validators={**Draft7Validator.VALIDATORS, "type": _nullable(Draft7Validator.VALIDATORS["type"])},
        type_checker=Draft7Validator.TYPE_CHECKER,
        id_of=Draft7Validator.ID_OF,
    )


def known_validator(schema: Any) -> Any:
    """Return jsonschema's validator for the draft that `$schema` names; by default for draft-07, as in Ajv."""
    from jsonschema import Draft7Validator
    from jsonschema.validators import validator_for

    known = validator_for(schema, default=Draft7Validator)
    return _draft_07() if known is Draft7Validator else known


def _nullable(keyword: Any) -> Any:
    def of_type(validator: Any, types: Any, instance: Any, schema: Any) -> Any:
        is_null = instance is None and schema.get("nullable") is True
        return () if is_null else keyword(validator, types, instance, schema)

    return of_type


def check_keywords(schema: Any) -> None:
    """Raise ValueError if a schema has a keyword that its draft does not have: Ajv refuses the schema, too."""
    from harness.core.yaml import shown

    validator = known_validator(schema)
    is_draft_07 = validator.META_SCHEMA.get("$id") == DRAFT_07
    known = {*validator.VALIDATORS, *ANNOTATIONS, *(("nullable", "$async") if is_draft_07 else LATER)}
    for part in parts(schema):
        for name in part:
            if name in known:
                continue
            what = f"has a JSON Schema with {shown(name)}, which is no keyword of its draft"
            if is_draft_07 and name in _newest_keywords():
                what += '\nName the draft that has it: $schema: "https://json-schema.org/draft/2020-12/schema"'
            raise ValueError(what if "\n" in what else f"{what}\nRemove it, or write it as $comment.")
        if part.get("nullable") is not None and "type" not in part:
            raise ValueError("has a JSON Schema with nullable and no type\nAdd the type, or remove nullable.")


def _newest_keywords() -> frozenset[str]:
    from jsonschema import Draft202012Validator

    return LATER | frozenset(Draft202012Validator.VALIDATORS)


# --- formats -----------------------------------------------------------------------------------------------------

TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?P<zone>[zZ]|[+-](\d\d)(?::?(\d\d))?)?", re.ASCII)
ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
EMAIL = re.compile(rf"{ATOM}(?:\.{ATOM})*@(?:{LABEL}\.)+{LABEL}", re.ASCII | re.IGNORECASE)
UUID = re.compile(r"(?:urn:uuid:)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
MOST_CHARACTERS = 320
"""Longest text that is compared with a format; no date, address or number of these formats is longer."""


def _is_date(text: str) -> bool:
    try:
        return re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _is_time(text: str) -> bool:
    found = TIME.fullmatch(text)
    if found is None or found["zone"] is None:
        return False
    hours, minutes, seconds = int(found[1]), int(found[2]), int(found[3])
    zone_hours, zone_minutes = int(found[5] or 0), int(found[6] or 0)
    if hours > 23 or minutes > 59 or zone_hours > 23 or zone_minutes > 59:
        return False
    sign = -1 if found["zone"].startswith("-") else 1
    utc = (hours * 60 + minutes - sign * (zone_hours * 60 + zone_minutes)) % (24 * 60)
    return seconds < 60 or (seconds == 60 and utc == 23 * 60 + 59)  # a leap second


def _is_date_time(text: str) -> bool:
    halves = re.split(r"[tT\s]", text)
    return len(halves) == 2 and _is_date(halves[0]) and _is_time(halves[1])


def _is_address(kind: Callable[[str], object]) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            return bool(kind(text)) and "%" not in text
        except ValueError:
            return False

    return fits


TEXTS: dict[str, Callable[[str], bool]] = {
    "date": _is_date,
    "time": _is_time,
    "date-time": _is_date_time,
    "email": lambda text: EMAIL.fullmatch(text) is not None,
    "uuid": lambda text: UUID.fullmatch(text) is not None,
    "ipv4": _is_address(lambda text: str(ipaddress.IPv4Address(text))),
    "ipv6": _is_address(lambda text: str(ipaddress.IPv6Address(text))),
}
WHOLE = {"int32": 2**31, "int64": 2**1024}
"""Formats of whole numbers, and how large their values are at most."""
ANYTHING = frozenset({"float", "double", "password", "binary"})
"""Formats that Ajv knows, and that every value fits."""
FORMATS = frozenset({*TEXTS, *WHOLE, *ANYTHING})


def fits(name: str, value: Any) -> bool:
    """Whether a value fits a format; values of another type do, as the specification says."""
    if isinstance(value, str) and name in TEXTS:
        return len(value) <= MOST_CHARACTERS and TEXTS[name](value)
    if isinstance(value, int | float) and not isinstance(value, bool) and name in WHOLE:
        return value == value // 1 and -WHOLE[name] <= value < WHOLE[name]
    return True


def unknown_format(schema: Any) -> str:
    """Return the first format in a schema that is not checked here; empty if there is none."""
    given = (part.get("format") for part in parts(schema))
    return next((name for name in given if isinstance(name, str) and name not in FORMATS), "")
