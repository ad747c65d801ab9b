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


FILES = {
    "pr.yaml": "- Say {{x}}\n",
    "d.yaml": "vars: {x: two, y: 3}\nassert: [{$ref: 'more/a.json#/0'}]\n",
    "more/a.json": '[{"$ref": "b.yaml"}, 1]',
    "more/b.yaml": "{type: contains, value: MUST}\n",
    "t.yaml": "- {assert: [{$ref: more/b.yaml, value: own}]}\n",
}


def test_references_name_files(tmp_path: Path) -> None:
    """`$ref` reads prompts, defaults, cases and assertions in files, each relative to the file that names it."""
    text = "prompts: {$ref: ./pr.yaml}\ndefaultTest: {$ref: ./d.yaml, vars: {x: one}}\ntests: {$ref: t.yaml}\n"
    (tmp_path / "more").mkdir()
    found = suite_in(tmp_path, {"suite.yaml": text, **FILES})
    assert [(one.prompt, [each.value for each in one.assertions]) for one in found.cases] == [
        ("Say one", ["MUST", "own"])
    ]
    assert found.notices == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("defaultTest: {$ref: ../d.yaml}\ntests: []", "suite.yaml:1:21: file://../d.yaml leads out of the suite"),
        ("defaultTest: {$ref: /d.yaml}\ntests: []", "suite.yaml:1:21: file:///d.yaml leads out of the suite"),
        ("tests: [{assert: [{$ref: none.yaml}]}]", 'there is no file "none.yaml"'),
        ("tests: {$ref: 'https://a.b/c.yaml'}", "this \\$ref names no file of the suite"),
        ("tests: {$ref: a.js}", "a \\$ref reads no such files"),
        ("tests: {$ref: 'l.yaml#/none'}", '"l.yaml" has no value at #/none'),
        ("tests: {$ref: l.yaml}", "l.yaml:1:8: this \\$ref leads to itself"),
        ("prompts: {$ref: '#/none'}\ntests: []", 'this \\$ref names nothing: "#/none"'),
        ("prompts: [{$ref: '#/none', raw: x}]\ntests: []", 'this \\$ref names nothing: "#/none"'),
        ("prompts: [x]\ntests: [{vars: {$ref: 3}, assert: [{type: is-json}]}]", "this \\$ref names nothing"),
        ("prompts: [x]\ntests: [{assert: [{type: is-json, $ref: '#/none'}]}]", "this \\$ref names nothing"),
    ],
)
def test_references_that_cannot_be_read_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    """A reference that leads out of the folder, elsewhere, nowhere or to itself is refused, and is never ignored."""
    with pytest.raises(SuiteError, match=expected):
        suite_in(tmp_path, {"suite.yaml": text, "l.yaml": "{$ref: l.yaml}"})


def test_references_in_providers_to_files_elsewhere_stay(tmp_path: Path) -> None:
    """A reference of a provider that cannot be read changes nothing, because the provider is not asked."""
    text = "providers: [{id: x, config: {a: {$ref: 'https://a.b/c'}}}]\ntests: [{prompt: a, assert: [{type: is-json}]}]"
    assert suite_in(tmp_path, {"suite.yaml": text}).notices == ("Ignored: providers (suite.yaml:1:1).",)
