"""Tests of how promptfoo's tests and scenarios are read, from the suite and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import SuiteError
from tests.support.suite_texts import suite_in, texts

HEAD = "prompts: ['Say {{x}}']\n"
CSV = "x,__expected\nteal,contains: teal\nred,contains: red\n"
YAML = """- {vars: {x: teal}, assert: [{type: contains, value: teal}]}
- {vars: {x: red}, assert: [{type: contains, value: r}]}
"""
JSONL = '{"vars": {"x": "teal"}, "assert": [{"type": "contains", "value": "teal"}]}\n'
BOTH = ["Say teal", "Say red"]


@pytest.mark.parametrize(
    ("tests", "name", "text"),
    [
        ("tests.csv", "tests.csv", CSV),
        ("[tests.csv]", "tests.csv", CSV),
        ("file://tests.yaml", "tests.yaml", YAML),
        ("['t/*.yaml']", "t/a.yaml", YAML),
        ("['t/{a,b}.yaml']", "t/a.yaml", YAML),
        ("{path: ./tests.csv}", "tests.csv", CSV),
        (
            "tests.json",
            "tests.json",
            YAML.replace("\n", "").replace("- {vars", ", {vars").join("[]").replace("[, ", "["),
        ),
    ],
)
def test_tests_may_be_files(tmp_path: Path, tests: str, name: str, text: str) -> None:
    """`tests` may be a path, a pattern, a list of these, or a mapping with a path."""
    assert texts(suite_in(tmp_path, {"suite.yaml": f"{HEAD}tests: {tests}\n", name: text})) == BOTH


def test_jsonl_and_single_cases(tmp_path: Path) -> None:
    """Cases may be in a JSONL file, and a YAML file may hold a single case."""
    files = {
        "suite.yaml": f"{HEAD}tests: [a.jsonl, one.yaml]\n",
        "a.jsonl": JSONL,
        "one.yaml": YAML.splitlines()[1][2:],
    }
    assert texts(suite_in(tmp_path, files)) == BOTH


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("tests.py:make", "cases from code"),
        ("['file://tests.js']", "cases from code"),
        ("huggingface://datasets/x", "cases on the internet"),
        ("['tests.xlsx#1']", "cases in Excel files (export them as CSV)"),
    ],
)
def test_other_tests_are_unsupported(tmp_path: Path, tests: str, reason: str) -> None:
    """Cases from code, the internet or Excel are unsupported; if that is skipped, the other cases remain."""
    with pytest.raises(SuiteError, match="these features are not supported") as caught:
        suite_in(tmp_path, {"suite.yaml": f"{HEAD}tests: {tests}\n"})
    assert reason in str(caught.value)
    listed = f"[{tests.strip('[]')}, a.yaml]"
    found = suite_in(tmp_path, {"suite.yaml": f"{HEAD}tests: {listed}\n", "a.yaml": YAML}, skip_unsupported=True)
    assert texts(found) == BOTH


def test_a_pattern_without_files_is_refused(tmp_path: Path) -> None:
    """If no file fits the pattern of `tests`, the suite is refused."""
    with pytest.raises(SuiteError, match=r'suite.yaml:2:8: no file fits "none/\*.yaml"'):
        suite_in(tmp_path, {"suite.yaml": f"{HEAD}tests: none/*.yaml\n"})


def test_scenarios_are_multiplied(tmp_path: Path) -> None:
    """Each entry of a scenario's config is joined with each of its tests, in the suite or in a file."""
    text = (
        HEAD
        + """
scenarios:
- config:
  - {vars: {x: teal}, assert: [{type: contains, value: t}]}
  - {vars: {x: red, y: 1}}
  tests:
  - {assert: [{type: contains, value: e}]}
  - tests.csv
"""
    )
    found = suite_in(tmp_path, {"suite.yaml": text, "tests.csv": "z,__expected\n1,contains: d\n"})
    assert [(case.prompt, [one.value for one in case.assertions]) for case in found.cases] == [
        ("Say teal", ["t", "e"]), ("Say teal", ["t", "d"]), ("Say red", ["e"]), ("Say red", ["d"]),
    ]  # fmt: skip


def test_default_test_in_a_file(tmp_path: Path) -> None:
    """`defaultTest` may be a file; an error in it gives the place in that file."""
    text = "prompts: ['Say {{x}}']\ndefaultTest: file://d.yaml\ntests: [{vars: {y: 1}}]\n"
    files = {"suite.yaml": text, "d.yaml": "vars: {x: teal}\nassert:\n- {type: contains, value: teal}\n"}
    assert texts(suite_in(tmp_path, files)) == ["Say teal"]
    with pytest.raises(SuiteError, match=r'd\.yaml:1:17: unknown assertion type "contain"'):
        suite_in(tmp_path, {"d.yaml": "assert: [{type: contain, value: x}]\n"})


def test_default_test_alone_is_asked_once(tmp_path: Path) -> None:
    """Without tests, each prompt is asked once with the variables and assertions of `defaultTest`."""
    text = HEAD + "defaultTest: {vars: {x: teal}, assert: [{type: contains, value: teal}]}\n"
    assert texts(suite_in(tmp_path, {"suite.yaml": text})) == ["Say teal"]


def test_default_assertions_can_be_disabled(tmp_path: Path) -> None:
    """With the option disableDefaultAsserts, a case has only its own assertions."""
    text = (
        HEAD
        + """
defaultTest: {vars: {x: teal}, assert: [{type: contains, value: a}]}
tests: [{options: {disableDefaultAsserts: true}, assert: [{type: contains, value: b}]}]
"""
    )
    assert [one.value for one in suite_in(tmp_path, {"suite.yaml": text}).cases[0].assertions] == ["b"]


def test_cases_without_assertions_are_left_out_on_request(tmp_path: Path) -> None:
    """A case without assertions is refused; if unsupported features are skipped, it is left out and counted."""
    text = HEAD + "tests: [{vars: {x: one}}, {vars: {x: two}, assert: [{type: contains, value: teal}]}]\n"
    with pytest.raises(SuiteError, match="this case has no assertions"):
        suite_in(tmp_path, {"suite.yaml": text})
    found = suite_in(tmp_path, {}, skip_unsupported=True)
    assert texts(found) == ["Say two"]
    assert found.notices == ("Left out, because they have no assertions: 1 of the cases.",)


def test_repeated_cases_are_left_out_on_request(tmp_path: Path) -> None:
    """Equal cases without ids are refused; if unsupported features are skipped, the later one is left out."""
    text = f"{HEAD}tests:\n{YAML.splitlines()[0]}\n{YAML}"
    with pytest.raises(SuiteError, match="two cases have the id"):
        suite_in(tmp_path, {"suite.yaml": text})
    found = suite_in(tmp_path, {}, skip_unsupported=True)
    assert texts(found) == BOTH
    assert found.notices == ("Left out, because they repeat another case: 1 of the cases.",)
