"""Read the parts of `providers` that change what a case means. The harness asks a model of its own instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.core.yaml import Document, Node
from harness.suites.promptfoo.prompts import Prompt

MOST_COMPARISONS = 1_000_000
"""Largest number of prompts times names of prompts, so that a suite cannot take minutes."""


def asked_of_any(document: Document, prompts: list[Prompt]) -> list[Prompt]:
    """Return the prompts that promptfoo asks any provider. A provider may name its own; any other is asked all.

    Raises:
        HarnessError: the providers name too many prompts.
    """
    named: list[Any] = []
    for provider in _providers(document):
        own = [written.child("prompts") for written in _written(provider)]
        names = [one.value for part in own if part is not None for one in (part.children or [part]) if one.value]
        if not names:
            return prompts
        named += names
    if not named:
        return prompts
    if len(named) * len(prompts) > MOST_COMPARISONS:
        raise document.wrong("the providers name too many prompts", "Name fewer, or remove the providers.")
    return [prompt for prompt in prompts if any(isinstance(name, str) and prompt.is_named(name) for name in named)]


def transforms(document: Document) -> Iterator[Node]:
    """Yield the transforms that change the answers of a provider before they are judged."""
    for provider in _providers(document):
        for written in _written(provider):
            part = written.child("transform")
            if part is not None and part.value not in (None, ""):
                yield part


def _providers(document: Document) -> Iterator[Node]:
    for name in ("providers", "targets"):
        listed = document.root.child(name)
        if listed is not None:
            yield from listed.children if isinstance(listed.value, list) else [listed]


def _written(provider: Node) -> Iterator[Node]:
    """Yield the mapping that describes a provider: the entry itself, or the value beside the provider's name."""
    if not isinstance(provider.value, dict):
        return
    if provider.child("id") is not None:
        yield provider
    else:
        yield from (child for child in provider.value.values() if isinstance(child.value, dict))
