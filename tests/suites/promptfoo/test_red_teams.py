"""Tests of how the attacks of a red team are read, which promptfoo asks as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import SuiteError
from tests.support.suite_texts import suite, suite_in, texts

ASSERT = "assert: [{type: contains, value: x}]"
MARKS = [
    "redteam: {purpose: p}",
    "defaultTest: {assert: [{type: 'promptfoo:redteam:pii'}]}",
    "defaultTest: {assert: [{type: assert-set, assert: [{type: 'promptfoo:redteam:pii'}]}]}",
    "defaultTest: {metadata: {pluginId: pii, pluginConfig: {}}}",
    "defaultTest: {metadata: {pluginId: pii, goal: g}}",
]


@pytest.mark.parametrize("mark", MARKS)
def test_attacks_keep_their_last_line_feed(mark: str) -> None:
    """The variable with the attack keeps the line feed at its end, which promptfoo removes from every other one."""
    text = f'prompts: [\'{{{{c}}}}|{{{{q}}}}\']\n{mark}\ntests: [{{vars: {{q: "a\\n", c: "b\\n"}}, {ASSERT}}}]'
    assert texts(suite(text, skip_unsupported=True)) == ["b|a\n"]
    assert texts(suite(text.replace(mark, ""))) == ["b|a"]


@pytest.mark.parametrize("mark", MARKS)
def test_attacks_are_not_evaluated(mark: str) -> None:
    """A template in a variable of a red team, which promptfoo leaves as it is, makes the case unsupported."""
    text = f"prompts: ['{{{{q}}}}']\n{mark}\ntests: [{{vars: {{q: 'Say {{{{secret}}}}', secret: x}}, {ASSERT}}}]"
    with pytest.raises(SuiteError, match="templates in the attacks of a red team"):
        suite(text)


@pytest.mark.parametrize(
    ("redteam", "prompt", "expected"),
    [
        ("{injectVar: b}", "{{b}}|{{prompt}}|{{a}}", "B\n|P|A"),
        ("{purpose: p}", "{{b}}|{{prompt}}|{{a}}", "B|P\n|A"),
        ("{purpose: p}", "{{b}}{# {{prompt}} #}|{{a | trim}}{% if b %}{% endif %}", "B|A"),
        ("{purpose: p}", "{{a}}|{{b}}", "A|B\n"),
    ],
)
def test_which_variable_holds_the_attack(redteam: str, prompt: str, expected: str) -> None:
    """The attack is in the variable that injectVar names, in `prompt`, or in the last one that the prompt names."""
    variables = 'a: "A\\n", b: "B\\n", prompt: "P\\n"'
    text = f"redteam: {redteam}\nprompts: ['{prompt}']\ntests: [{{vars: {{{variables}}}, {ASSERT}}}]"
    assert texts(suite(text)) == [expected]


def test_attacks_in_different_variables_are_unsupported() -> None:
    """If the prompts of a case have the attack in different variables, the case is unsupported."""
    text = f"redteam: {{}}\nprompts: ['{{{{a}}}}{{{{b}}}}', '{{{{a}}}}']\ntests: [{{vars: {{a: x, b: y}}, {ASSERT}}}]"
    with pytest.raises(SuiteError, match="prompts of a red team that have the attack in different variables"):
        suite(text)


def test_attacks_in_files_are_unsupported(tmp_path: Path) -> None:
    """An attack in a file, which promptfoo does not read, is unsupported; other variables of the case are read."""
    text = f"redteam: {{}}\nprompts: ['{{{{a}}}}{{{{b}}}}']\ntests: [{{vars: {{a: file://a.txt, b: B}}, {ASSERT}}}]"
    assert texts(suite_in(tmp_path, {"suite.yaml": text, "a.txt": "A"})) == ["AB"]
    with pytest.raises(SuiteError, match="attacks of a red team in files"):
        suite(text.replace("a: file://a.txt, b: B", "a: A, b: file://a.txt"), a_dot_txt="A")
