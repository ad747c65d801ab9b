"""Tests of how cases are built from the text of a suite: defaults, variables, prompts and ids."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import SuiteError
from harness.core.suite import Role
from harness.suites import parse_suite
from harness.suites.cases import MAX_CASES
from harness.suites.promptfoo.templates import MAX_FILLED, Templates
from tests.support.suite_texts import CASE, case, files, refusal, suite


def test_choices_are_read() -> None:
    """Choices are read as texts, with variables replaced. If `value` is missing, the reference is the right choice."""
    found = suite("""
defaultTest: {choices: [yes, no]}
tests:
  - {prompt: p, assert: [{type: choice, value: no}]}
  - {prompt: q, vars: {a: 7}, choices: ["{{a}}", "8", 9], reference: "8", assert: [{type: not-choice}]}
""").cases
    assert [(c.choices, c.assertions[0].name, c.assertions[0].value) for c in found] == [
        (("yes", "no"), "choice", "no"),
        (("7", "8", "9"), "not-choice", "8"),
    ]


def test_defaults_join_every_case() -> None:
    """A case's variables and assertions are added to those of `defaultTest`; its other fields replace the defaults."""
    found = suite("""
defaultTest: {role: retain, vars: {a: 1, b: 2}, assert: [{type: contains, value: "{{a}}"}]}
tests:
  - {prompt: "{{a}} {{b}}", vars: {b: 3}}
  - {prompt: p, role: avoid, assert: [{type: contains, value: x}]}
""").cases
    assert [c.role for c in found] == [Role.RETAIN, Role.AVOID]
    assert found[0].prompt == "1 3"
    assert [a.value for a in found[1].assertions] == ["1", "x"]


def test_a_case_that_is_not_written_yet() -> None:
    """If the prompt of a case is TODO, the case is not asked, and a notice gives the case and its place."""
    found = suite(f"tests:\n{CASE}\n- {{id: later, prompt: TODO, assert: [{{type: contains, value: x}}]}}")
    assert [c.prompt for c in found.cases] == ["Hi"]
    assert found.notices == (
        "Not asked, because the prompt is still TODO: later (suite.yaml:3:23). Replace TODO with the user's message.",
    )


def test_a_suite_without_written_cases() -> None:
    """If the prompt of every case is TODO, the suite is refused."""
    with pytest.raises(SuiteError, match="the suite has no case with a prompt and a supported assertion"):
        suite("tests: [{prompt: TODO, assert: [{type: contains, value: x}]}]")


def test_prompts_multiply_cases() -> None:
    """If a case has no prompt, each of the suite's prompts makes a case, and numbers are appended to its id."""
    found = suite("""
prompts: ["Q: {{q}}", "{{q}}?"]
tests: [{id: a, vars: {q: Why}, assert: [{type: contains, value: x}]}]
""").cases
    assert [(c.id, c.prompt) for c in found] == [("a-1", "Q: Why"), ("a-2", "Why?")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt: p", "suite.yaml:2:3: this case has no assertions"),
        ("assert: [{type: is-json}]", "suite.yaml:2:3: this case has no prompt"),
        (
            "prompt: p\npromt: p\nassert: [{type: is-json}]",
            'suite.yaml:3:3: unknown key "promt"\nDid you mean "prompt"?',
        ),
        ("prompt: p\nrole: lern", 'suite.yaml:3:9: unknown role "lern"\nDid you mean "learn"?'),
        ("prompt: p\nassert: [{type: icontain}]", 'suite.yaml:3:19: unknown assertion type "icontain"'),
        ("prompt: p\nassert: [{value: x}]", 'suite.yaml:3:12: "type" is missing'),
        ("prompt: p\nassert: [{type: contains}]", "suite.yaml:3:12: contains needs a text"),
        ("prompt: p\nassert: [{type: contains, value: ''}]", "suite.yaml:3:36: contains has an empty value"),
        ("prompt: p\nassert: [{type: contains-any, value: {}}]", "suite.yaml:3:40: contains-any needs a list"),
        ("prompt: p\nassert: [{type: not-contains-all, value: []}]", "not-contains-all needs a list"),
        ("prompt: p\nassert: [{type: is-json, value: x}]", "suite.yaml:3:35: is-json takes a JSON Schema"),
        ("prompt: p\nassert: [{type: regex, value: '(a'}]", "suite.yaml:3:33: not a regular expression"),
        (
            "prompt: p\nassert: [{type: is-json, weight: -1}]",
            "suite.yaml:3:36: weight: should be greater than or equal to 0, found -1",
        ),
        ("prompt: p\nmessages: [{role: user, content: x}]", "a case has either a prompt or messages"),
        ("prompt: ' '", "suite.yaml:2:11: the prompt is empty"),
        (
            "messages: [{role: human, content: x}]",
            'suite.yaml:2:21: unknown role "human"\nKnown: assistant, system, user.',
        ),
        ("messages: [{role: user, content: ' '}]", "suite.yaml:2:36: this message is empty"),
        ("messages: [{role: assistant, content: x}]", "suite.yaml:2:13: message 1 is from assistant, not from user"),
        ("messages: [{role: system, content: x}]", "the last message is not from user"),
        (
            "prompt: '{{a}}'\nassert: [{type: is-json}]",
            'suite.yaml:2:11: there is no variable "a"\nDefine it under vars.',
        ),
        ("prompt: a\nassert: [{type: contains, value: '{{b}}'}]", 'suite.yaml:3:36: there is no variable "b"'),
        ("prompt: a\nassert: [{type: contains-any, value: [x, '{{b}}']}]", "suite.yaml:3:44: there is no variable"),
        ("prompt: a\nassert: [{type: perplexity}]", "suite.yaml:3:12: perplexity needs a threshold of at least 1"),
        (
            "prompt: a\nassert: [{type: not-perplexity, threshold: 0.5}]",
            "not-perplexity needs a threshold of at least 1",
        ),
        ("prompt: a\nassert: [{type: perplexity, threshold: 2, value: x}]", "perplexity takes no value"),
        ("prompt: a\nassert: [{type: perplexity, threshold: .nan}]", "suite.yaml:3:42: threshold"),
        (
            "prompt: a\nassert: [{type: reference-perplexity, threshold: 2}]",
            "suite.yaml:3:12: reference-perplexity needs a case with a reference\nAdd reference: to the case.",
        ),
        (
            "prompt: a\nassert: [{type: choice, value: x}]",
            "suite.yaml:3:34: choice needs a case with choices\nAdd choices:",
        ),
        (
            "prompt: a\nchoices: [Paris, Rome]\nassert: [{type: choice, value: paris}]",
            'suite.yaml:4:34: "paris" is not among the case\'s choices\nDid you mean "Paris"?',
        ),
        (
            "prompt: a\nchoices: [Paris, Rome]\nassert: [{type: choice}]",
            "choice needs a value, or a case with a reference",
        ),
        ("prompt: a\nchoices: [Paris]\nassert: [{type: choice, value: Paris}]", "suite.yaml:3:12: choices"),
        (
            "prompt: a\nchoices: [a, ' a']\nassert: [{type: choice, value: a}]",
            'suite.yaml:3:16: the choice " a" is given twice',
        ),
        ("prompt: a\nchoices: [a, '']\nassert: [{type: choice, value: a}]", "suite.yaml:3:16: this choice is empty"),
    ],
)
def test_a_bad_case_is_refused_at_its_place(text: str, expected: str) -> None:
    """If a case has a mistake, the error gives line and column, and for a misspelt name the most similar valid one."""
    with pytest.raises(SuiteError) as caught:
        case(text)
    assert expected in str(caught.value)


def test_equal_ids_are_refused() -> None:
    """If two cases have the same id, the suite is refused, and the error gives both places."""
    one = "{id: a, prompt: p, assert: [{type: is-json}]}"
    assert "suite.yaml:2:3 and suite.yaml:3:3" in refusal(f"tests:\n- {one}\n- {one.replace('p,', 'q,')}")


def test_equal_cases_are_refused() -> None:
    """If two cases have no ids, but equal prompts and assertions, they are refused, even in different files."""
    message = refusal(f"tests:\n{CASE}\n- file://b.yaml", b_dot_yaml=f"# more\n{CASE}")
    assert "suite.yaml:2:3 and b.yaml:2:3" in message


@pytest.mark.parametrize(
    "text",
    ["prompts: ['{{a}}']\ntests: [{vars: {a: [x, x]}, assert: [{type: is-json}]}]",
     "prompts: [x]\ntests: [{vars: {a: [y, z]}, assert: [{type: is-json}]}]",
     "prompts: [x, x]\ntests: [{assert: [{type: is-json}]}]"],
)  # fmt: skip
def test_a_case_that_repeats_itself_is_refused(text: str) -> None:
    """If prompts or values make equal cases of one, an error says what to do; with the option, the first is kept."""
    message = refusal(text)
    assert 'this case asks "x" twice, with the same assertions' in message
    assert "leave repeated cases out with --skip-unsupported" in message
    assert [case.prompt for case in parse_suite(text, "suite.yaml", files(), skip_unsupported=True).cases] == ["x"]


def test_cases_of_a_scenario_are_numbered() -> None:
    """If a case of a scenario has an id, the cases that are made of it have this id with a number."""
    found = suite(
        "prompts: ['{{a}}']\nscenarios:\n- config: [{vars: {a: x}}, {vars: {a: y}}]\n"
        "  tests: [{id: one, assert: [{type: is-json}]}]"
    )
    assert [(case.id, case.prompt) for case in found.cases] == [("one-1", "x"), ("one-2", "y")]


def test_ids_do_not_depend_on_order() -> None:
    """If a case has no id, the id that it gets does not depend on its position in the suite."""
    other = "- {prompt: Hu, assert: [{type: is-json}]}"
    first, second = suite(f"tests:\n{CASE}\n{other}").cases, suite(f"tests:\n{other}\n{CASE}").cases
    assert {c.id for c in first} == {c.id for c in second}


@pytest.mark.parametrize("text", ["{{a.__class__}}", "{{ a | other }}", "{% for %}", "{{}}", "{{{{}}}}", "{% raw %}"])
def test_what_cannot_be_evaluated_is_refused(text: str) -> None:
    """If a text has a template that is not evaluated, the suite is refused; the text is not asked as it is."""
    message = refusal(f"tests:\n- {{prompt: '{text}', vars: {{a: x}}, assert: [{{type: contains, value: x}}]}}")
    assert "these features are not supported:\na template with " in message


@settings(deadline=None)
@given(st.text(), st.text())
def test_replaced_text_is_not_searched_again(before: str, value: str) -> None:
    """If the value of a variable looks like a variable, it is inserted as it is and not replaced in turn."""
    text = before.replace("{", "").replace("}", "")
    assert Templates().render(text + "{{ a }}{{b}}", {"a": value, "b": "{{a}}"}) == f"{text}{value}{{{{a}}}}"


def test_replacing_variables_is_bounded() -> None:
    """If replacing variables would make a text too long, an error is raised before the text is built."""
    with pytest.raises(ValueError, match="is longer than"):
        Templates().render("{{a}}" * 100_000, {"a": "x" * MAX_FILLED})


SCENARIOS = {"config": [{}] * 150, "tests": [{"vars": {"a": "b"}}] * 150}


@pytest.mark.parametrize(
    "multiplied",
    [
        {"scenarios": [SCENARIOS]},
        {"tests": [{"vars": {"a": [f"{n}" for n in range(9_000)]}}] * 3},
        {"tests": [{"prompt": f"{n}"} for n in range(MAX_CASES + 1)]},
    ],
    ids=["scenarios", "variables", "cases"],
)
def test_the_number_of_cases_is_bounded(multiplied: dict[str, Any]) -> None:
    """A suite of more than 20,000 cases is refused, however they come about, and before all of them are made."""
    asserted = {"assert": [{"type": "contains", "value": "x"}]}
    text = json.dumps({"prompts": ["{{a}}"], "defaultTest": asserted, **multiplied})
    assert "cases, more than 20,000" in refusal(text)
