"""Prepare what is written of a case before it is validated: read the files in it, and set unknown keys aside."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from harness.core.errors import SuiteError
from harness.core.yaml import Document, Node, parse_yaml, shown
from harness.scoring.registry import find, is_unsupported
from harness.scoring.values import FILE
from harness.suites.assertions import AssertionForm
from harness.suites.case_files import EXPECTED
from harness.suites.forms import DefaultsForm, OptionsForm
from harness.suites.notices import Notices, UnsupportedError
from harness.suites.promptfoo.files import Files, is_pattern, local_name
from harness.suites.promptfoo.references import check_replaced, placed

MISSPELT = 0.8
"""Similarity from which an unknown key counts as a known one that is misspelt (difflib's ratio)."""

SYSTEMS = (
    *("system", "systemPrompt", "system_prompt", "systemMessage", "system_message"),
    *("systemInstruction", "system_instruction", "instructions"),
)
"""Names by which the configuration of a provider gives a system message."""
MAY_BE_EMPTY = frozenset({"vars", "assert", "options", "metadata", "prompts", "tests", "scenarios", "defaultTest"})
"""Keys of promptfoo that mean the same without a value as if they were missing."""


def known_keys(document: Document, form: type[BaseModel], notices: Notices) -> Document:
    """Return a document without keys that the form does not know; they are noted, since promptfoo ignores them, too.

    A key that is almost a known one stays, so that the form refuses it.
    """
    return replace(document, root=_known(document.root, form, document, notices))


def _known(node: Node, form: type[BaseModel], document: Document, notices: Notices) -> Node:
    if not isinstance(node.value, dict):
        return node
    check_replaced(replace(document, root=node))
    if issubclass(form, DefaultsForm):
        _check_columns(replace(document, root=node), notices)
    names = [info.alias or name for name, info in form.model_fields.items()]
    unknown = [
        key
        for key in node.value
        if key not in names and not difflib.get_close_matches(key.lower()[:60], names, n=1, cutoff=MISSPELT)
    ]
    for key in unknown:
        if form is OptionsForm and key in SYSTEMS:  # promptfoo adds the options to the configuration of the provider
            notices.unsupported("a system message in options", replace(document, root=node).place((key,), key=True))
            continue
        notices.ignore(f"the unknown key {shown(key)}", replace(document, root=node).place((key,), key=True))
    value = {
        key: _inside(key, child, form, document, notices)
        for key, child in node.value.items()
        if key not in unknown and not (key in MAY_BE_EMPTY and isinstance(child, Node) and child.value is None)
    }
    return replace(node, value=value)


def _check_columns(case: Document, notices: Notices) -> None:
    """Refuse assertions that are written as in CSV files, and note those among variables; promptfoo ignores both."""
    for key in case.root.value:
        if EXPECTED.fullmatch(key):
            remedy = "Write assert: [{type: ..., value: ...}], or save the rows as a CSV file."
            raise case.wrong(f"{key} is a column of CSV files, and holds no assertion here", remedy, (key,), key=True)
    variables = case.root.value.get("vars")
    named = variables.value if isinstance(variables, Node) else variables
    if isinstance(named, dict) and "assert" in named and variables is not None:
        what = "assert under vars, where it is a variable (write it beside vars)"
        notices.ignore(what, case.place(("vars", "assert"), key=True))


def _inside(key: str, child: Any, form: type[BaseModel], document: Document, notices: Notices) -> Any:
    if not isinstance(child, Node) or not issubclass(form, DefaultsForm | AssertionForm):
        return child
    if key == "vars":
        check_replaced(replace(document, root=child))
    if key == "options":
        return _known(child, OptionsForm, document, notices)
    if key == "assert" and isinstance(child.value, list):
        # The values in a row of a file have no places of their own.
        nodes = [item if isinstance(item, Node) else Node(child.line, child.column, item) for item in child.value]
        items = [_known(item, AssertionForm, document, notices) for item in nodes]
        is_kept = issubclass(form, AssertionForm) or not notices.skip
        return replace(child, value=items if is_kept else [one for one in items if _has_type(one, document, notices)])
    return child


def _has_type(assertion: Node, document: Document, notices: Notices) -> bool:
    """Whether an assertion has a type that the harness or promptfoo knows; if not, it is noted, to be skipped."""
    kind = assertion.child("type")
    name = kind.value if kind is not None else None
    if not isinstance(name, str) or find(name) is not None or is_unsupported(name):
        return True
    notices.unsupported(f"the unknown assertion type {shown(name)}", replace(document, root=assertion).place())
    return False


def with_files(document: Document, files: Files) -> Document:
    """Return a case with the files read that it names as its variables or assertions, such as `vars: vars.yaml`."""
    node = document.root
    if not isinstance(node.value, dict):
        return document
    made = dict(node.value)
    variables, assertions = node.child("vars"), node.child("assert")
    if variables is not None and isinstance(variables.value, str | list):
        made["vars"] = _variables(variables, document, files)
    if assertions is not None and isinstance(assertions.value, str | list):
        made["assert"] = _assertions(assertions, document, files)
    return document if made == node.value else replace(document, root=replace(node, value=made))


def _variables(node: Node, document: Document, files: Files) -> Node:
    """Return the variables of the files that a text or a list of texts names; later files replace earlier values.

    Raises:
        UnsupportedError: several files fit one pattern and give a variable different values.
    """
    found: dict[str, Any] = {}
    for written in _texts(node):
        for name in (names := _fitting(local_name(written), document, files)):
            loaded = parse_yaml(files.text(name, document, ("vars",)), name, SuiteError)
            if not isinstance(loaded.root.value, dict):
                raise loaded.wrong("expected variables", "Write NAME: VALUE.")
            if len(names) > 1 and not found.keys().isdisjoint(loaded.root.value):
                raise UnsupportedError("a pattern of files that give a variable several values")
            found.update(loaded.root.value)
    return replace(node, value=found)


def _fitting(name: str, document: Document, files: Files) -> list[str]:
    found = files.fitting(name, document, ("vars",)) if is_pattern(name) else [name]
    if not found:
        raise document.wrong(f"no file fits {shown(name)}", "Paths are relative to the suite's folder.", ("vars",))
    return found


def _texts(node: Node) -> Iterable[str]:
    values = [child.value for child in node.children] if isinstance(node.value, list) else [node.value]
    return [value for value in values if isinstance(value, str)]


def _assertions(node: Node, document: Document, files: Files) -> Node:
    """Return a list of assertions in which the files that it names are read."""
    listed = node.children if isinstance(node.value, list) else [node]
    if not any(isinstance(item.value, str) and item.value.startswith(FILE) for item in listed):
        return node
    found: list[Node] = []
    for item in listed:
        if not isinstance(item.value, str) or not item.value.startswith(FILE):
            found.append(item)
            continue
        name = local_name(item.value)
        loaded = parse_yaml(files.text(name, document, ("assert",)), name, SuiteError).root
        # Errors about what the file holds are shown at the place that names it.
        found += [placed(one, item) for one in (loaded.children if isinstance(loaded.value, list) else [loaded])]
    return replace(node, value=found)
