"""Tests of what is done before cases are validated: unknown keys, empty keys, and files of assertions."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import SuiteError
from tests.support.suite_texts import refusal, suite, suite_in

HEAD = "prompts: [Hi]\n"


def test_unknown_keys_are_noted() -> None:
    """Keys that promptfoo ignores are ignored anywhere in a suite, and a notice names each with its place."""
    found = suite(f"""{HEAD}x-info: 1
tests:
- nonsense: 2
  options: {{strange: 3}}
  assert: [{{type: contains, value: x, colour: red}}]
""")
    (notice,) = found.notices
    for key, place in (("x-info", "2:1"), ("nonsense", "4:3"), ("strange", "5:13"), ("colour", "6:39")):
        assert f'the unknown key "{key}" (suite.yaml:{place})' in notice


@pytest.mark.parametrize("key", ["promt", "asert", "vrs", "optins"])
def test_misspelt_keys_are_refused(key: str) -> None:
    """A key that is almost a known one is refused, because it is a mistake."""
    assert f'unknown key "{key}"\nDid you mean' in refusal(f"{HEAD}tests: [{{{key}: 1, assert: [{{type: is-json}}]}}]")


def test_keys_without_a_value() -> None:
    """A key of promptfoo without a value counts as missing."""
    found = suite(
        f"{HEAD}defaultTest:\nscenarios:\ntests:\n- vars:\n  options:\n  metadata:\n  assert: [{{type: is-json}}]\n"
    )
    assert len(found.cases) == 1


@pytest.mark.parametrize("written", ["file://a.yaml", "[file://a.yaml]"])
def test_assertions_in_files(tmp_path: Path, written: str) -> None:
    """`assert`, or an item of it, may be a file; an error in it is shown at the place that names it."""
    files = {"suite.yaml": f"{HEAD}tests: [{{assert: {written}}}]\n", "a.yaml": "- {type: contains, value: teal}\n"}
    assert [one.value for one in suite_in(tmp_path, files).cases[0].assertions] == ["teal"]
    with pytest.raises(SuiteError, match=r'suite\.yaml:2:.*unknown assertion type "contain"'):
        suite_in(tmp_path, {"a.yaml": "- {type: contain, value: teal}\n"})


@pytest.mark.parametrize("written", ["vars: v.py", "assert: file://a.js", "assert: [file://a.py:get]"])
def test_cases_from_code_are_unsupported(tmp_path: Path, written: str) -> None:
    """Variables or assertions from code are unsupported in a case, and an error in `defaultTest`."""
    text = f"{HEAD}tests: [{{{written}}}, {{assert: [{{type: is-json}}]}}]\n"
    with pytest.raises(SuiteError, match=r"not supported:\nvalues from code: suite\.yaml:2:9"):
        suite_in(tmp_path, {"suite.yaml": text})
    assert len(suite_in(tmp_path, {}, skip_unsupported=True).cases) == 1
    with pytest.raises(SuiteError, match=r"suite\.yaml:2:14: defaultTest cannot have values from code"):
        suite_in(tmp_path, {"suite.yaml": f"{HEAD}defaultTest: {{{written}}}\n{text.removeprefix(HEAD)}"})


def test_values_in_files_are_no_templates(tmp_path: Path) -> None:
    """The value of an assertion may be a file; its text is not a template, as in promptfoo."""
    files = {
        "suite.yaml": f"{HEAD}tests: [{{assert: [{{type: contains, value: file://v.txt}}]}}]\n",
        "v.txt": " {{x}}\n",
    }
    assert suite_in(tmp_path, files).cases[0].assertions[0].value == "{{x}}"


def test_unknown_assertion_types_are_skipped_on_request() -> None:
    """An assertion type that nobody knows is a mistake; if unsupported features are skipped, it is one of them."""
    text = f"{HEAD}tests: [{{assert: [{{type: min-length, value: 3}}, {{type: contains, value: x}}]}}]"
    assert 'unknown assertion type "min-length"' in refusal(text)


def test_root_allows_files_elsewhere(tmp_path: Path) -> None:
    """A file outside the suite's folder is refused, with advice that works: to name a folder that holds both."""
    files = {
        "configs/c.yaml": "prompts: [file://../prompts/p.txt]\ntests: [{assert: [{type: contains, value: x}]}]\n",
        "prompts/p.txt": "Answer: what?",
    }
    with pytest.raises(
        SuiteError, match="leads out of the suite's folder\nMove the file into it, or name a folder that"
    ):
        suite_in(tmp_path, files, name="configs/c.yaml")
    assert suite_in(tmp_path, {}, name="configs/c.yaml", root=tmp_path).cases[0].prompt == "Answer: what?"
    with pytest.raises(SuiteError, match="leads out of the folder given as --root"):
        suite_in(tmp_path, {}, name="configs/c.yaml", root=tmp_path / "configs")
    (tmp_path / "prompts" / "p.txt").unlink()
    (tmp_path / "prompts" / "p.txt").symlink_to("/etc/hostname")
    with pytest.raises(SuiteError, match="leads out of the folder given as --root"):
        suite_in(tmp_path, {}, name="configs/c.yaml", root=tmp_path)


def test_assertions_as_in_csv_files_are_refused_elsewhere(tmp_path: Path) -> None:
    """A key `__expected` outside of CSV files holds no assertion, so it is refused with the way to write one."""
    text = "prompts: [x]\ndefaultTest: {assert: [{type: is-json}]}\ntests: {path: rows.yaml}"
    with pytest.raises(SuiteError, match=r"rows.yaml:1:\d+: __expected2 is a column of CSV files") as caught:
        suite_in(tmp_path, {"suite.yaml": text, "rows.yaml": "- {vars: {a: b}, __expected2: 'contains: x'}"})
    assert "Write assert:" in caught.value.remedy


def test_assertions_among_variables_are_named() -> None:
    """An `assert` that is indented under `vars` is a variable; a notice says so."""
    text = "prompts: ['{{x}}']\ntests: [{vars: {x: a, assert: [{type: is-json}]}, assert: [{type: is-json}]}]"
    assert "assert under vars, where it is a variable (write it beside vars) (suite.yaml:2:" in suite(text).notices[0]


def test_unsupported_parts_name_their_prompt() -> None:
    """What is unsupported in one of several prompts is named with the prompt's label or number."""
    prompts = "['{{x}}', '{% y %}', {raw: '{% y %}', label: long}]"
    text = f"prompts: {prompts}\ntests: [{{vars: {{x: a}}, assert: [{{type: is-json}}]}}]"
    message = refusal(text)
    assert " in the prompt 2: suite.yaml:2:" in message
    assert ' in the prompt "long": suite.yaml:2:' in message
