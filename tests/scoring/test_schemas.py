"""Tests of JSON Schema as promptfoo's validator has it."""

from __future__ import annotations

from typing import Any

import pytest

from harness.scoring.assertion_types.structure import misfit
from tests.support.suite_texts import case, refusal

NEWEST = "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"items": [{"type": "string"}], "additionalItems": False}, ["a"], [1]),
        ({"items": [{"type": "string"}], "additionalItems": False}, [], ["a", "b"]),
        ({"dependencies": {"a": ["b"]}}, {"a": 1, "b": 2}, {"a": 1}),
        ({"dependencies": {"a": {"required": ["b"]}}}, {"b": 1}, {"a": 1}),
        ({"type": "string", "nullable": True}, None, 1),
        ({"type": "string", "nullable": False}, "a", None),
        ({"type": "string", "nullable": True, "enum": ["a"]}, "a", None),
        ({"definitions": {"a": {"type": "object"}}, "$ref": "#/definitions/a", "required": ["b"]}, {"b": 1}, {}),
        ({"$schema": NEWEST, "prefixItems": [{"type": "string"}]}, ["a"], [1]),
        ({"$schema": NEWEST, "minContains": 2, "contains": {"const": 1}}, [1, 1], [1]),
        ({"format": "date"}, "2024-02-29", "2023-02-29"),
        ({"format": "date"}, 5, "20240229"),
        ({"format": "time"}, "23:59:60Z", "10:00:00"),
        ({"format": "time"}, "10:00:00.5+01:00", "25:00:00Z"),
        ({"format": "date-time"}, "2024-02-29T10:00:00Z", "2024-02-29T10:00:00"),
        ({"format": "date-time"}, "2024-02-29 10:00:00-0530", "2024-02-30T10:00:00Z"),
        ({"format": "email"}, "a.b@c.de", "a@b"),
        ({"format": "email"}, "a+b@c-d.de", "a b@c.de"),
        ({"format": "uuid"}, "urn:uuid:123e4567-e89b-12d3-a456-426614174000", "123e4567e89b12d3a456426614174000"),
        ({"format": "ipv4"}, "1.2.3.4", "1.2.3.256"),
        ({"format": "ipv6"}, "::1", "::1%eth0"),
        ({"format": "int32"}, 5.0, 2**31),
        ({"format": "int64"}, 2**40, 1.5),
    ],
)
def test_schemas_are_those_of_draft_07(schema: Any, good: Any, bad: Any) -> None:
    """Without `$schema`, a schema is of draft-07 with `nullable`; formats are checked as promptfoo does."""
    assert misfit(schema, good) is None
    assert misfit(schema, bad) is not None


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("{properties: {a: {requred: [b]}}}", 'is-json has a JSON Schema with "requred", which is no keyword'),
        ("{prefixItems: [{type: string}]}", 'Name the draft that has it: $schema: "https://json-schema.org/draft/2020'),
        (f"{{$schema: '{NEWEST}', dependencies: {{a: [b]}}}}", '"dependencies", which is no keyword of its draft'),
        ("{nullable: true}", "nullable and no type"),
        ("{allOf: [{items: {example: 1}}]}", '"example", which is no keyword'),
        ("{properties: {a: {format: uri}}}", 'is-json with the format "uri": suite.yaml:3:'),
    ],
)
def test_what_a_schema_cannot_mean_is_refused(schema: str, expected: str) -> None:
    """An unknown keyword is refused by its name, and a format that is not checked here is unsupported."""
    assert expected in refusal(f"tests:\n- prompt: a\n  assert: [{{type: is-json, value: {schema}}}]")


def test_formats_in_files_are_unsupported_too() -> None:
    """A schema in a file with a format that is not checked here is unsupported, too."""
    text = "tests:\n- prompt: a\n  assert: [{type: is-json, value: 'file://s.json'}]"
    assert 'is-json with the format "uri"' in refusal(text, s_dot_json='{"format": "uri"}')


def test_values_within_a_schema_are_no_keywords() -> None:
    """Names of properties, and what `enum`, `const`, `default` and `examples` hold, may be any."""
    schema = "{properties: {format: {const: {a: 1}, default: {b: 2}, enum: [{format: x}], examples: [{c: 3}]}}}"
    assert case(f"prompt: a\nassert: [{{type: is-json, value: {schema}}}]").notices == ()
