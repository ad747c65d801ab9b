"""Tests of the assertion types about JSON and JSON Schema."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.validators import validator_for

from harness.core.scores import Score
from harness.core.suite import Assertion, Case, Message
from harness.scoring import score
from harness.scoring.assertion_types.structure import equal, misfit

SUBJECT = f'"{"a" * 50_000}b"'


def scored(kind: str, schema: Any, answer: str) -> Score:
    return score(Case("c", (Message("user", "p"),), (Assertion(kind, schema),)), answer)


NEWEST = "https://json-schema.org/draft/2020-12/schema"
BOMB = {"$defs": {**{f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)}, "a40": {}},
        "$ref": "#/$defs/a0"}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "answer", "reason"),
    [
        ({"pattern": "(a+)+$"}, SUBJECT, "no verdict within 1 s"),
        ({"patternProperties": {"(a+)+$": False}}, f"{{{SUBJECT}: 1}}", "no verdict within 1 s"),
        ({"patternProperties": {"(a+)+$": {}}, "additionalProperties": False}, f"{{{SUBJECT}: 1}}", "no verdict"),
        ({"propertyNames": {"pattern": "(a+)+$"}}, f"{{{SUBJECT}: 1}}", "no verdict within 1 s"),
        (
            {"$schema": NEWEST, "patternProperties": {"(a+)+$": {}}, "unevaluatedProperties": False},
            "{}",
            "cannot also use pattern",
        ),
        ({"items": {"pattern": "(a+)+$"}}, f"[{SUBJECT}]", "no verdict within 1 s"),
        (BOMB, "1", "no verdict within 2 s"),
        ({"$ref": "#"}, "1", "refers to itself without end"),
        ({"$ref": "http://localhost:9/schema"}, "1", "which is not in it"),
        ({"$schema": NEWEST, "$dynamicRef": "http://localhost:9/schema"}, "1", "which is not in it"),
        ({"$id": "http://localhost:9/a", "$ref": "b"}, "1", "which is not in it"),
        ({"minimum": "x"}, "1", "cannot be applied"),
        ({"type": "nonsense"}, "1", "cannot be applied"),
    ],
)
def test_a_hostile_schema_is_an_error_of_its_case(schema: Any, answer: str, reason: str) -> None:
    """A schema that would hang, download, recurse endlessly or fail gives an error and no score within ten seconds."""
    start = time.process_time()
    found = scored("is-json", schema, answer)
    assert time.process_time() - start < 10
    assert found.value is None
    assert reason in found.error


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_nothing_is_fetched(listener: socket.socket) -> None:
    """A `$ref` with a URL is not downloaded."""
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/schema"
    assert scored("is-json", {"$ref": address}, "1").value is None
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_unique_items_are_found_fast() -> None:
    """`uniqueItems` is fast enough for 20,000 items, because it does not compare each item with every other."""
    answer = json.dumps([{str(i): i} for i in range(20_000)])
    assert scored("is-json", {"uniqueItems": True}, answer).passed


@pytest.mark.parametrize("depth", [10, 900, 100_000])
def test_nesting_is_no_crash(depth: int) -> None:
    """An answer of any nesting depth is judged, or gives an error."""
    for kind in ("is-json", "contains-json"):
        for schema in (None, {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}}}}}):
            found = scored(kind, schema, '{"a":' * depth + "1" + "}" * depth)
            assert found.value is not None or found.error


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 1.5]) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3),
    max_leaves=6,
)
schemas = st.sampled_from(
    [
        {"uniqueItems": True}, {"pattern": "^a"}, {"patternProperties": {"a": {"type": "integer"}}},
        {"properties": {"a": {}}, "additionalProperties": False}, {"additionalProperties": {"type": "string"}},
        {"properties": {"a": {}}, "patternProperties": {"b": {}}, "additionalProperties": False},
        {"items": {"uniqueItems": True}}, {"$schema": NEWEST, "unevaluatedProperties": False, "properties": {"a": {}}},
    ]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(values, schemas)
def test_verdicts_are_those_of_jsonschema(value: Any, schema: Any) -> None:
    """The harness's versions of schema keywords accept the same values as jsonschema's own."""
    assert (misfit(schema, value) is None) is validator_for(schema, default=Draft7Validator)(schema).is_valid(value)


@given(values, values)
def test_equality_is_that_of_json(one: Any, other: Any) -> None:
    """Two JSON values count as equal exactly if a schema whose `const` is one of them accepts the other."""
    assert equal(one, other) is Draft202012Validator({"const": one}).is_valid(other)
