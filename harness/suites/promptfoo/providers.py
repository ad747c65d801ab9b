"""Find the parts of `providers` that change what a case means. The harness asks a model of its own, without them."""

from __future__ import annotations

from collections.abc import Iterator

from harness.core.yaml import Document, Node

PROMPTS, TRANSFORM = "prompts of a provider", "transform of a provider"
PARTS = {"prompts": PROMPTS, "transform": TRANSFORM}


def provider_parts(document: Document) -> Iterator[tuple[str, Node]]:
    """Yield the parts of a configuration's providers that change which prompts are asked, or what is judged."""
    for name in ("providers", "targets"):
        listed = document.root.child(name)
        if listed is None:
            continue
        for provider in listed.children if isinstance(listed.value, list) else [listed]:
            for written in _written(provider):
                for key, what in PARTS.items():
                    part = written.child(key)
                    if part is not None and part.value not in (None, "", []):
                        yield what, part


def _written(provider: Node) -> Iterator[Node]:
    """Yield the mapping that describes a provider: the entry itself, or the value beside the provider's name."""
    if not isinstance(provider.value, dict):
        return
    if provider.child("id") is not None:
        yield provider
    else:
        yield from (child for child in provider.value.values() if isinstance(child.value, dict))
