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
