"""Replace `$ref: "#/assertionTemplates/short"` and `$ref: ./short.yaml` by the value that they name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote

from harness.core.errors import HarnessError
from harness.core.yaml import MAX_DEPTH, Document, Node, parse_yaml, shown
from harness.core.yaml.document import MAX_REPEATED

REF = "$ref"
ELSEWHERE = re.compile(r"[a-z]+://")
PROVIDERS = ("providers", "targets")
"""Parts of a suite that are not asked: a reference in them to a file that cannot be read changes nothing."""
DATA = (".json", ".yaml", ".yml")
TEXTS = (".txt", ".md", ".markdown", ".html", ".htm", ".csv", ".xml")

Load = Callable[[str, Document], str]
"""Returns the text of a file, given its path relative to the suite's folder and the value that names it."""


def no_files(name: str, at: Document) -> str:
    """Refuse every file, for suites that are read without any."""
    raise at.wrong(f"there is no file {shown(name)}", "Write the value out.")


def dereferenced(document: Document, text: str, load: Load = no_files) -> Document:
    """Return a document with its references replaced; `text` is the text of its file.

    Keys beside `$ref` are added to the mapping that it names, and take precedence. The path of a file is relative to
    the file that names it. References that name nothing in their file stay, because those of a JSON Schema are about
    the schema; so do those to the internet.

    Raises:
        HarnessError: a reference leads to itself or to a file that cannot be read, or the references stand for too
            many values.
    """
    if REF not in text:
        return document
    return replace(document, root=_Replacing(load).root(document))


def check_replaced(document: Document) -> None:
    """Raise an error if a mapping still has a `$ref`, which therefore names nothing."""
    if isinstance(document.root.value, dict) and REF in document.root.value:
        named = document.root.child(REF)
        name = named.value if named is not None else document.root.value[REF]
        is_elsewhere = isinstance(name, str) and ELSEWHERE.match(name)
        what = f"this $ref names {'no file of the suite' if is_elsewhere else 'nothing'}: {shown(name)}"
        remedy = "Write the value out, or name a value of this file as #/NAME, or a file in the suite's folder."
        raise document.wrong(what, remedy, (REF,))


class _Replacing:
    def __init__(self, load: Load) -> None:
        self.load, self.repeated = load, 0
        self.files: dict[str, Document] = {}

    def root(self, document: Document) -> Node:
        """Return the root of a document with all references replaced."""
        self.files[document.file] = document
        root = document.root
        if not isinstance(root.value, dict) or REF in root.value:
            return self.node(root, (), document)
        value = {
            key: self.provider(child, document) if key in PROVIDERS else self.node(child, (), document)
            for key, child in root.value.items()
        }
        return replace(root, value=value)

    def provider(self, node: Node, document: Document) -> Node:
        try:
            return self.node(node, (), document)
        except HarnessError:
            return node

    def node(self, node: Node, within: tuple[tuple[str, str], ...], at: Document) -> Node:
        """Return a node with all references in it replaced.

        Args:
            node: a value of the document `at`.
            within: the references that are being replaced, each with its file.
            at: the document in which the references are looked up.
        """
        self.repeated += bool(within)
        if self.repeated > MAX_REPEATED:
            raise wrong(at, node, f"the references stand for more than {MAX_REPEATED:,} values", "Use fewer.")
        if len(within) > MAX_DEPTH:
            raise wrong(at, node, "references are nested too deeply", "Nest fewer.")
        if isinstance(node.value, list):
            return replace(node, value=[self.node(child, within, at) for child in node.value])
        if not isinstance(node.value, dict):
            return node
        reference = node.value.get(REF)
        found = self.target(reference, within, at) if reference is not None else None
        if found is None or reference is None:
            return replace(node, value={key: self.node(child, within, at) for key, child in node.value.items()})
        target = self.node(found.root, (*within, (at.file, reference.value)), found)
        if found.file != at.file:  # errors about what another file holds are shown at the place that names it
            target = placed(target, reference)
        beside = {key: self.node(child, within, at) for key, child in node.value.items() if key != REF}
        if not beside or not isinstance(target.value, dict):
            return target
        return replace(target, value={**target.value, **beside}, keys={**target.keys, **node.keys})

    def target(self, reference: Node, within: tuple[tuple[str, str], ...], at: Document) -> Document | None:
        """Return the value that a reference names, as a part of its document; None if its file has no such value."""
        name = reference.value
        if not isinstance(name, str) or not name.strip() or ELSEWHERE.match(name):
            return None
        if name.startswith("#") and not name.startswith("#/"):
            return None
        if (at.file, name) in within:
            raise wrong(at, reference, "this $ref leads to itself", "Write the value out.")
        path, _, pointer = name.partition("#")
        document = self.file(unquote(path), reference, at) if path else self.files.get(at.file, at)
        found: Node | None = document.root
        for part in pointer.removeprefix("/").split("/") if pointer.strip("/") else ():
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            is_index = found is not None and isinstance(found.value, list) and key.isdecimal()
            found = found.child(int(key) if is_index else key) if found is not None else None
        if found is None and path:
            raise wrong(at, reference, f"{shown(path)} has no value at #{pointer}", "Name a value that it has.")
        return replace(document, root=found) if found is not None else None

    def file(self, path: str, reference: Node, at: Document) -> Document:
        """Return the document of a file that a reference names; a file that is no YAML or JSON is one text."""
        joined = path if posixpath.isabs(path) else posixpath.join(posixpath.dirname(at.file), path)
        name = posixpath.normpath(joined)
        if name not in self.files:
            suffix = posixpath.splitext(name)[1].lower()
            if suffix not in DATA + TEXTS:
                remedy = f"Name a file that ends with {', '.join(DATA)} or .txt."
                raise wrong(at, reference, f"a $ref reads no such files: {shown(path)}", remedy)
            text = self.load(name, replace(at, root=reference))
            root = Node(1, 1, text)
            self.files[name] = parse_yaml(text, name, at.error) if suffix in DATA else Document(name, root, at.error)
        return self.files[name]


def wrong(document: Document, node: Node, message: str, remedy: str) -> HarnessError:
    return replace(document, root=node).wrong(message, remedy)


def placed(node: Node, at: Node) -> Node:
    """Return a node of another file with all of its places at the node that includes it."""
    if isinstance(node.value, list):
        return Node(at.line, at.column, [placed(child, at) for child in node.children])
    if isinstance(node.value, dict):
        return Node(at.line, at.column, {key: placed(child, at) for key, child in node.value.items()})
    return Node(at.line, at.column, node.value)
