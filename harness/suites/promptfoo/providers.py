"""Read the parts of `providers` that change what a case means. The harness asks a model of its own instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from harness.core.errors import SuiteError
from harness.core.yaml import Document, Node, parse_yaml
from harness.scoring.values import FILE
from harness.suites.notices import UnsupportedError
from harness.suites.promptfoo.files import Files, local_name
from harness.suites.promptfoo.prompts import Prompt
from harness.suites.promptfoo.references import placed
from harness.suites.promptfoo.written_cases import SYSTEMS

MOST_COMPARISONS = 1_000_000
"""Largest number of prompts times names of prompts, so that a suite cannot take minutes."""
SYSTEM = "the system message of a provider (write it as system_prompt of the suite)"
AROUND = "a text that a provider puts around the prompt (write it into the prompts)"
SENT = frozenset({"body", "passthrough", "extra_body", "extraBody", "request"})
"""Parts of a configuration that are sent as they are written."""
NOT_ASKED = frozenset(
    {
        *(
            "tools",
            "functions",
            "toolConfig",
            "headers",
            "response_format",
            "responseSchema",
            "generationConfig",
            "schema",
        ),
    }
)
"""Parts of a configuration in which the name of a system message means something else."""
OF_TURNS = re.compile(r"<[^<>]*>|\[/?INST\]|\b(?:user|model|assistant|human)\b:?", re.IGNORECASE)
"""What a chat template puts around a message, which the harness does by itself."""
BLANK_LINE = re.compile(r"\r?\n[ \t]*\r?\n")
PROMPT = re.compile(r"\{\{-?\s*prompt\b[^{}]*\}\}")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
FIELD = re.compile(r"[\w.-]+=")
"""The name of a value in a form, such as `q={{prompt}}`."""
SYSTEM_IN_JSON = re.compile(
    rf'"(?:{"|".join(SYSTEMS)})"\s*:\s*[\["{{]\s*[^"\s}}\]]|"role"\s*:\s*"(?:system|developer)"'
)
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


def additions(document: Document, providers: Providers) -> Iterator[tuple[str, Node]]:
    """Yield what a provider, or the configuration of a prompt, adds to every prompt, with its place."""
    configs = [config for provider in providers for written in provider if (config := written.child("config"))]
    prompts = document.root.child("prompts")
    configs += [config for prompt in (prompts.children if prompts else ()) if (config := prompt.child("config"))]
    for config in configs:
        yield from ((SYSTEM, part) for key in SYSTEMS if (part := config.child(key)) and part.value)
        around = config.child("prompt")
        for key in ("prefix", "suffix"):  # Replicate
            part = around.child(key) if around is not None else None
            if part is not None and isinstance(part.value, str) and OF_TURNS.sub("", part.value).strip():
                yield AROUND, part
        if isinstance(config.value, dict):
            yield from (found for key, part in config.value.items() for found in _added(key, part, is_sent=False))


def _added(key: str, node: Node, *, is_sent: bool) -> Iterator[tuple[str, Node]]:
    """Yield what a part of a configuration adds to a prompt. `is_sent`: whether the part is sent as it is written."""
    if key in NOT_ASKED:
        return
    is_sent = is_sent or key in SENT
    if isinstance(node.value, str) and is_sent:
        text = BLANK_LINE.split(node.value, maxsplit=1)[-1] if key == "request" else node.value
        yield from ((what, node) for what in _added_in_text(text))
    if isinstance(node.value, list):
        yield from (found for child in node.children for found in _added("", child, is_sent=is_sent))
    if isinstance(node.value, dict):
        role = node.child("role")
        if role is not None and role.value in ("system", "developer") and node.child("content") is not None:
            yield SYSTEM, node
        for name, child in node.value.items():
            if is_sent and name in SYSTEMS and child.value:
                yield SYSTEM, child
            else:
                yield from _added(name, child, is_sent=is_sent)


def _added_in_text(text: str) -> Iterator[str]:
    """Yield what a text, which may be JSON with the prompt in it, adds to the prompt."""
    if SYSTEM_IN_JSON.search(text):
        yield SYSTEM
    if text.lstrip()[:1] in ("{", "[") and not text.lstrip().startswith("{{"):
        parts = STRING.findall(text)
    else:
        parts = [FIELD.sub("", part) for part in text.split("&")] if FIELD.match(text) else [text]
    if any(PROMPT.search(part) and PROMPT.sub("", part).strip() for part in parts):
        yield AROUND


def tools(providers: Providers) -> Iterator[Node]:
    """Yield the tools that a provider offers its model."""
    yield from _configured(providers, TOOLS)


def _configured(providers: Providers, keys: tuple[str, ...]) -> Iterator[Node]:
    for provider in providers:
        for written in provider:
            config = written.child("config")
            found = [config.child(key) for key in keys] if config is not None else []
            yield from (part for part in found if part is not None and part.value)
