"""Read the parts of `providers` that change what a case means. The harness asks a model of its own instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.core.errors import SuiteError
from harness.core.yaml import Document, Node, parse_yaml
from harness.scoring.values import FILE
from harness.suites.notices import UnsupportedError
from harness.suites.promptfoo.files import Files, local_name
from harness.suites.promptfoo.prompts import Prompt
from harness.suites.promptfoo.written_cases import placed

MOST_COMPARISONS = 1_000_000
"""Largest number of prompts times names of prompts, so that a suite cannot take minutes."""
SYSTEMS = (
    *("system", "systemPrompt", "system_prompt", "systemMessage", "system_message"),
    *("systemInstruction", "system_instruction", "instructions"),
)
"""Names by which the configuration of a provider gives a system message."""
TOOLS = ("tools", "functions", "toolConfig")
Providers = list[list[Node]]
"""The mappings that describe each provider; an empty list for one that is only named."""


def read_providers(document: Document, files: Files) -> Providers:
    """Return the providers of a suite, also those in YAML and JSON files. Files that cannot be read are ignored."""
    return [list(_written(provider)) for provider in _providers(document, files)]


def _providers(document: Document, files: Files) -> Iterator[Node]:
    for name in ("providers", "targets"):
        listed = document.root.child(name)
        if listed is not None:
            for provider in listed.children if isinstance(listed.value, list) else [listed]:
                yield from _in_file(provider, document, files)


def _in_file(provider: Node, document: Document, files: Files) -> Iterator[Node]:
    """Yield the providers in the file that an entry names, at the entry's place; the entry itself if it names none."""
    if not isinstance(provider.value, str) or not provider.value.startswith(FILE):
        yield provider
        return
    try:
        name = local_name(provider.value)
        found = parse_yaml(files.text(name, document), name, SuiteError).root
    except (SuiteError, UnsupportedError):
        yield provider
        return
    yield from (placed(one, provider) for one in (found.children if isinstance(found.value, list) else [found]))


def _written(provider: Node) -> Iterator[Node]:
    """Yield the mapping that describes a provider: the entry itself, or the value beside the provider's name."""
    if not isinstance(provider.value, dict):
        return
    if provider.child("id") is not None:
        yield provider
    else:
        yield from (child for child in provider.children if isinstance(child.value, dict))


def asked_of_any(document: Document, providers: Providers, prompts: list[Prompt]) -> list[Prompt]:
    """Return the prompts that promptfoo asks any provider. A provider may name its own; any other is asked all.

    Raises:
        HarnessError: the providers name too many prompts.
    """
    named: list[Any] = []
    for provider in providers:
        own = [written.child("prompts") for written in provider]
        names = [one.value for part in own if part is not None for one in (part.children or [part]) if one.value]
        if not names:
            return prompts
        named += names
    if not named:
        return prompts
    if len(named) * len(prompts) > MOST_COMPARISONS:
        raise document.wrong("the providers name too many prompts", "Name fewer, or remove the providers.")
    return [prompt for prompt in prompts if any(isinstance(name, str) and prompt.is_named(name) for name in named)]


def have_prompts(providers: Providers) -> bool:
    """Whether a provider is asked only some of the prompts."""
    return any(written.child("prompts") is not None for provider in providers for written in provider)


def transforms(providers: Providers) -> Iterator[Node]:
    """Yield the transforms that change the answers of a provider before they are judged."""
    for provider in providers:
        for written in provider:
            part = written.child("transform")
            if part is not None and part.value not in (None, ""):
                yield part


def system_messages(providers: Providers) -> Iterator[Node]:
    """Yield the system messages that a provider puts before every prompt."""
    yield from _configured(providers, SYSTEMS)


def tools(providers: Providers) -> Iterator[Node]:
    """Yield the tools that a provider offers its model."""
    yield from _configured(providers, TOOLS)


def _configured(providers: Providers, keys: tuple[str, ...]) -> Iterator[Node]:
    for provider in providers:
        for written in provider:
            config = written.child("config")
            found = [config.child(key) for key in keys] if config is not None else []
            yield from (part for part in found if part is not None and part.value)
