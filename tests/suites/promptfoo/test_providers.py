"""Tests of the parts of providers that change what a case means."""

from __future__ import annotations

import pytest

from harness.core.errors import SuiteError
from harness.suites import parse_suite
from tests.support.suite_texts import CASE, files, refusal, suite, texts

PROVIDERS = [
    "providers: [{{id: openai:gpt-4o, {part}}}]",
    "providers: [echo, {{'openai:gpt-4o': {{{part}}}}}]",
    "targets: [{{id: openai:gpt-4o, label: x, {part}}}]",
]


@pytest.mark.parametrize("written", PROVIDERS)
def test_transforms_of_providers_are_unsupported(written: str) -> None:
    """A provider's own transform is unsupported, at its place, however the provider is written."""
    text = f"{written.format(part='transform: output.trim()')}\ntests:\n{CASE}"
    assert "transform of a provider: suite.yaml:1:" in refusal(text)


@pytest.mark.parametrize(
    ("providers", "expected"),
    [
        ("[{id: a, prompts: [short]}]", ["S"]),
        ("[{id: a, prompts: [short]}, {b: {prompts: [long, other]}}]", ["S", "L"]),
        ("[{id: a, prompts: short}, {id: b, prompts: ['lo*']}]", ["S", "L"]),
        ("[{id: a, prompts: [short]}, {id: b}]", ["S", "L", "X"]),
        ("[{id: a, prompts: [short]}, b]", ["S", "L", "X"]),
        ("[{id: a, prompts: []}]", ["S", "L", "X"]),
    ],
)
def test_prompts_that_some_provider_is_asked_are_asked(providers: str, expected: list[str]) -> None:
    """The prompts are asked that promptfoo asks any provider: those that one names, or all if one names none."""
    prompts = "[{label: short, raw: S}, {label: long, raw: L}, {label: third, raw: X}]"
    found = suite(f"providers: {providers}\nprompts: {prompts}\ntests: [{{assert: [{{type: is-json}}]}}]")
    assert texts(found) == expected


def test_prompts_that_are_not_there_leave_nothing_to_ask() -> None:
    """If all providers name prompts that the suite does not have, its cases are unsupported."""
    text = "providers: [{id: a, prompts: [other]}]\nprompts: [x]\ntests: [{assert: [{type: is-json}]}]"
    assert "cases without a supported prompt" in refusal(text)


def test_the_names_of_prompts_are_bounded() -> None:
    """Providers that name so many prompts that the comparison would take minutes are refused."""
    providers = ", ".join(f"{{id: a{n}, prompts: [b{n}]}}" for n in range(1001))
    prompts = ", ".join(f"p{n}" for n in range(1000))
    text = f"providers: [{providers}]\nprompts: [{prompts}]\ntests: [{{assert: [{{type: is-json}}]}}]"
    assert "the providers name too many prompts" in refusal(text)


def test_a_providers_transform_cannot_be_skipped() -> None:
    """A provider's transform changes every answer, so it is refused; the remedy names where it can be written."""
    text = f"{PROVIDERS[0].format(part='transform: output.trim()')}\ntests:\n{CASE}"
    with pytest.raises(
        SuiteError, match="transform of a provider changes every answer, so it cannot be skipped"
    ) as caught:
        parse_suite(text, "suite.yaml", files(), skip_unsupported=True)
    assert "defaultTest: {options: {transform: ...}}" in caught.value.remedy
    moved = f"defaultTest: {{options: {{transform: output.trim()}}}}\ntests:\n{CASE}"
    assert suite(moved).cases[0].assertions[0].transforms == ("output.trim()",)


@pytest.mark.parametrize(
    "providers", ["openai:gpt-4o", "[openai:gpt-4o, {id: x, config: {temperature: 0}}]", "[{id: x, prompts: []}]"]
)
def test_other_providers_are_ignored(providers: str) -> None:
    """Providers without parts that change what a case means are ignored, with a notice."""
    assert suite(f"providers: {providers}\ntests:\n{CASE}").notices == ("Ignored: providers (suite.yaml:1:1).",)


def test_answers_that_are_given_are_unsupported() -> None:
    """A case with `providerOutput`, which judges a given answer and asks nothing, is unsupported."""
    text = f"tests:\n{CASE}\n- {{prompt: Hu, providerOutput: Ho, assert: [{{type: is-json}}]}}"
    assert "providerOutput: suite.yaml:3:" in refusal(text)
    found = parse_suite(text, "suite.yaml", files(), skip_unsupported=True)
    assert [case.prompt for case in found.cases] == ["Hi"]


@pytest.mark.parametrize("key", ["systemInstruction: {parts: [{text: Moo}]}", "system: Moo", "instructions: Moo"])
@pytest.mark.parametrize("written", PROVIDERS)
def test_system_messages_of_providers_are_unsupported(written: str, key: str) -> None:
    """A system message in the configuration of a provider is unsupported, or skipped and counted."""
    text = f"{written.format(part=f'config: {{{key}}}')}\ntests:\n{CASE}"
    assert "the system message of a provider (write it as system_prompt of the suite): suite.yaml:1:" in refusal(text)
    notice = suite(text, skip_unsupported=True).notices[0]
    assert "the system message of a provider (write it as system_prompt of the suite) (once)" in notice


@pytest.mark.parametrize("written", PROVIDERS)
def test_tools_of_providers_are_named(written: str) -> None:
    """The tools of a provider, which the harness does not give its model, are named in a notice."""
    text = f"{written.format(part='config: {temperature: 0, tools: [{name: a}]}')}\ntests:\n{CASE}"
    assert "the tools of a provider (suite.yaml:1:" in suite(text).notices[-1]


@pytest.mark.parametrize("written", ["file://p.yaml", "[echo, file://p.yaml]"])
def test_providers_in_files_are_read(written: str) -> None:
    """Providers in a YAML file change the suite as those in the suite do; a file that is not there is ignored."""
    text = f"providers: {written}\nprompts: [a, b]\ntests: [{{assert: [{{type: is-json}}]}}]"
    expected = ["b"] if written.startswith("file") else ["a", "b"]
    assert texts(suite(text, p_dot_yaml="- {id: x, prompts: [b]}")) == expected
    assert "transform of a provider: suite.yaml:1:" in refusal(text, p_dot_yaml="{id: x, transform: output.trim()}")
    assert texts(suite(text)) == ["a", "b"]


def test_cases_that_choose_among_such_providers_are_unsupported() -> None:
    """A case that names its providers is unsupported if these have prompts of their own."""
    case = "{providers: [x], assert: [{type: is-json}]}"
    text = f"providers: [{{id: x, prompts: [a]}}, {{id: y, prompts: [b]}}]\nprompts: [a, b]\ntests: [{case}]"
    assert "cases that choose among providers with prompts of their own" in refusal(text)
    assert texts(suite(text.replace(", prompts: [a]", "").replace(", prompts: [b]", ""))) == ["a", "b"]


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("body: {messages: [{role: system, content: Moo}, {role: user, content: '{{prompt}}'}]}", "system message"),
        ("passthrough: {messages: [{role: developer, content: Moo}]}", "system message"),
        ("passthrough: {system: Moo}", "system message"),
        ("messages: [{role: system, content: Moo}]", "system message"),
        (r"""body: '{"prompt": "{{prompt}}", "system": "Moo"}'""", "system message"),
        (r"""body: '{"messages": [{"role": "system", "content": "Moo"}, {{prompt}}]}'""", "system message"),
        (r"""body: '{"prompt": "Moo. Answer: {{prompt}}"}'""", "text that a provider puts around"),
        ("body: {query: 'Moo: {{ prompt | dump }}'}", "text that a provider puts around"),
        ("body: 'Moo: {{prompt}}'", "text that a provider puts around"),
        (r"""request: "POST / HTTP/1.1\nA: b\n\nMoo {{prompt}}" """, "text that a provider puts around"),
        ("prompt: {prefix: Moo}", "text that a provider puts around"),
        ("prompt: {suffix: Moo}", "text that a provider puts around"),
    ],
)
@pytest.mark.parametrize("written", [PROVIDERS[0], "prompts: [{{raw: Hu, {part}}}]"])
def test_what_is_added_to_prompts_elsewhere_is_unsupported(written: str, part: str, what: str) -> None:
    """A system message, or a text around the prompt, is unsupported wherever a configuration holds it."""
    found = refusal(f"{written.format(part=f'config: {{{part}}}')}\ntests:\n{CASE}")
    assert what in found
    assert "suite.yaml:1:" in found


@pytest.mark.parametrize(
    "part",
    [
        "body: {prompt: '{{prompt}}', model: m}",
        r"""body: '{"prompt": "{{prompt}}", "model": "m", "system": ""}'""",
        r"""body: '{"messages": {{prompt}}}'""",
        "body: 'q={{prompt}}&a=b'",
        r"""request: "POST / HTTP/1.1\nA: b\n\n{{prompt}}" """,
        r"""prompt: {prefix: "<start_of_turn>user\n", suffix: "<end_of_turn>\n<start_of_turn>model"}""",
        "tools: [{parameters: {properties: {system: {type: string}}}}]",
    ],
)
def test_what_adds_nothing_to_prompts_is_ignored(part: str) -> None:
    """A configuration that sends the prompt as it is changes nothing."""
    assert "unsupported" not in suite(f"{PROVIDERS[0].format(part=f'config: {{{part}}}')}\ntests:\n{CASE}").notices[0]


def test_a_system_message_in_options_is_unsupported() -> None:
    """Options of a case are added to the configuration of the provider, so a system message there is unsupported."""
    text = "tests: [{prompt: Hi, options: {systemPrompt: Moo}, assert: [{type: is-json}]}]"
    assert "a system message in options: suite.yaml:1:" in refusal(text)
