"""Replace `$ref: "#/assertionTemplates/short"` by the value at that place of the same file."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

from harness.core.errors import HarnessError
from harness.core.yaml import MAX_DEPTH, Document
from harness.core.yaml.document import MAX_REPEATED, Node

REF = "$ref"


def dereferenced(document: Document, text: str) -> Document:
    """Return a document with its references replaced; `text` is the text of its file.

    Keys beside `$ref` are added to the mapping that it names, and take precedence. References that name nothing here
    stay, because those of a JSON Schema are about the schema.

    Raises:
        HarnessError: a reference leads to itself, or the references stand for too many values.
    """
    if REF not in text:
        return document
    return replace(document, root=_Replacing(document).node(document.root, ()))


class _Replacing:
    def __init__(self, document: Document) -> None:
        self.document, self.repeated = document, 0

    def node(self, node: Node, within: tuple[str, ...]) -> Node:
        """Return a node with all references in it replaced. `within`: the references that are being replaced."""
        self.repeated += bool(within)
        if self.repeated > MAX_REPEATED:
            raise self.wrong(node, f"the references stand for more than {MAX_REPEATED:,} values", "Use fewer.")
        if len(within) > MAX_DEPTH:
            raise self.wrong(node, "references are nested too deeply", "Nest fewer.")
        if isinstance(node.value, list):
            return replace(node, value=[self.node(child, within) for child in node.value])
        if not isinstance(node.value, dict):
            return node
        reference = node.value.get(REF)
        found = self.target(reference, within) if reference is not None else None
        if found is None or reference is None:
            return replace(node, value={key: self.node(child, within) for key, child in node.value.items()})
        target = self.node(found, (*within, reference.value))
        beside = {key: self.node(child, within) for key, child in node.value.items() if key != REF}
        if not beside or not isinstance(target.value, dict):
            return target
        return replace(target, value={**target.value, **beside}, keys={**target.keys, **node.keys})

    def target(self, reference: Node, within: tuple[str, ...]) -> Node | None:
        """Return the value that a reference names, or None if it names nothing in this file."""
        pointer = reference.value
        if not isinstance(pointer, str) or not pointer.startswith("#/"):
            return None
        if pointer in within:
            raise self.wrong(reference, "this $ref leads to itself", "Write the value out.")
        found: Node | None = self.document.root
        for part in pointer[2:].split("/"):
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            is_index = found is not None and isinstance(found.value, list) and name.isdecimal()
            found = found.child(int(name) if is_index else name) if found is not None else None
        return found

    def wrong(self, node: Node, message: str, remedy: str) -> HarnessError:
        return replace(self.document, root=node).wrong(message, remedy)
