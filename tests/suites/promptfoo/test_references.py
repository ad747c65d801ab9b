"""Tests of `$ref` in promptfoo's configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import SuiteError
from tests.support.suite_texts import case, suite, suite_in

HEAD = "prompts: [Hi]\nassertionTemplates:\n  short: {type: word-count, value: {max: 9}, weight: 2}\n"


def test_references_name_assertion_templates() -> None:
    """`$ref` stands for an assertion template; keys beside it take precedence."""
    found = suite(f"""{HEAD}
tests:
- {{assert: [{{$ref: '#/assertionTemplates/short'}}, {{$ref: '#/assertionTemplates/short', weight: 3, metric: m}}]}}
""")
    assert [(one.type, one.value, one.weight, one.metric) for one in found.cases[0].assertions] == [
        ("word-count", {"max": 9}, 2.0, ""),
        ("word-count", {"max": 9}, 3.0, "m"),
    ]
    assert found.notices == ()


def test_references_in_files_of_cases(tmp_path: Path) -> None:
    """In a file of cases, a reference names a value of the same file."""
    cases = "- {assert: [{type: contains, value: x}]}\n- {assert: [{$ref: '#/0/assert/0'}, {type: is-json}]}\n"
    found = suite_in(tmp_path, {"suite.yaml": "prompts: [Hi]\ntests: cases.yaml\n", "cases.yaml": cases})
    assert [one.type for one in found.cases[1].assertions] == ["contains", "is-json"]


def test_references_of_a_json_schema_stay() -> None:
    """A reference within a JSON Schema names a part of the schema, and stays."""
    schema = "{$defs: {a: {type: number}}, properties: {x: {$ref: '#/$defs/a'}}}"
    found = case(f"prompt: a\nassert: [{{type: is-json, value: {schema}}}]")
    assert found.cases[0].assertions[0].value["properties"]["x"] == {"$ref": "#/$defs/a"}


def test_references_that_do_not_end_are_refused() -> None:
    """If a reference leads to itself, or references multiply values beyond the limit, the suite is refused."""
    with pytest.raises(SuiteError, match=r"suite.yaml:1:11: this \$ref leads to itself"):
        suite("a: {$ref: '#/b'}\nb: {$ref: '#/a'}\ntests: []")
    bomb = "a0: [x]\n" + "".join(f"a{i + 1}: [" + ", ".join([f"{{$ref: '#/a{i}'}}"] * 10) + "]\n" for i in range(12))
    with pytest.raises(SuiteError, match="the references stand for more than 50,000 values"):
        suite(bomb)
