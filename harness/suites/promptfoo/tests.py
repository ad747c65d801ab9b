"""Read `tests` and `scenarios`: cases in the suite, and those in files that it names by a path or a pattern."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from harness.core.yaml import Document, Node, shown
from harness.suites.case_files import case_rows
from harness.suites.notices import Notices, UnsupportedError
from harness.suites.promptfoo.files import BRACES, Files, is_pattern, local_name

Location = tuple[str | int, ...]
SHEETS = (".xlsx", ".xls")


def case_documents(document: Document, files: Files, notices: Notices) -> Iterator[Document]:
    """Yield every case of a suite as a document. Sources that are not supported are noted and left out.

    Raises:
        HarnessError: `tests` or `scenarios` is no list and no file, or a file cannot be read.
    """
    tests, scenarios = document.root.child("tests"), document.root.child("scenarios")
    if tests is not None and tests.value is not None:
        yield from _cases(document, ("tests",), files, notices)
    elif scenarios is None:
        # promptfoo asks every prompt once, with the variables and assertions of defaultTest.
        default = document.root.child("defaultTest")
        if default is None or not isinstance(default.value, dict) or default.child("assert") is None:
            raise document.wrong('"tests" is missing', "Add cases under tests.")
        yield Document(document.file, replace(default, value={}, keys={}), document.error)
    if scenarios is not None:
        yield from _scenarios(document, files, notices)


def _cases(document: Document, location: Location, files: Files, notices: Notices) -> Iterator[Document]:
    listed = document.part(location).root.value
    if not isinstance(listed, list | str | dict) or not listed:
        message = f"{location[-1]}: expected a list of cases, or file://NAME"
        raise document.wrong(message, f"Add cases under {location[-1]}.", location)
    items = [(*location, i) for i in range(len(listed))] if isinstance(listed, list) else [location]
    for place in items:
        item = document.part(place)
        source = _source(item)
        if source is None:
            yield item
            continue
        try:
            yield from _from_files(source, files, document, place)
        except UnsupportedError as missing:
            notices.unsupported(str(missing), document.place(place))


def _source(item: Document) -> str | None:
    """Return the name of the files that an entry of `tests` names; None if it is a case."""
    path = item.root.child("path") if isinstance(item.root.value, dict) else None
    value: Any = path.value if path is not None else item.root.value
    return value if isinstance(value, str) else None


def _from_files(source: str, files: Files, document: Document, location: Location) -> Iterator[Document]:
    try:
        name = local_name(source)
    except UnsupportedError as missing:
        raise UnsupportedError(str(missing).replace("values", "cases").replace("files", "cases")) from None
    if PurePath(name.partition("#")[0]).suffix in SHEETS:
        raise UnsupportedError("cases in Excel files (export them as CSV)")
    if not is_pattern(name) and not BRACES.search(name):
        yield from case_rows(name, files.text(name, document, location), files.referenced)
        return
    found = files.fitting(name, document, location)
    if not found:
        raise document.wrong(f"no file fits {shown(source)}", "Paths are relative to the suite's folder.", location)
    for one in found:
        yield from case_rows(one, files.text(one, document, location), files.referenced)


# --- scenarios ---------------------------------------------------------------------------------------------------


def _scenarios(document: Document, files: Files, notices: Notices) -> Iterator[Document]:
    """Yield the cases of scenarios: each entry of `config` with each of `tests`."""
    listed = document.part(("scenarios",)).root.value
    if not isinstance(listed, list):
        raise document.wrong("scenarios: expected a list", "Write a list of config and tests.", ("scenarios",))
    for i in range(len(listed)):
        scenario = document.part(("scenarios", i))
        configs = scenario.root.child("config")
        if configs is None or not isinstance(configs.value, list):
            notices.unsupported("scenarios in files", scenario.place())
            continue
        empty = [Document(document.file, Node(scenario.root.line, scenario.root.column, {}), document.error)]
        has_tests = scenario.root.child("tests") is not None
        tests = list(_cases(document, ("scenarios", i, "tests"), files, notices)) if has_tests else empty
        for config in configs.children:
            yield from (replace(test, root=_merged(config, test.root)) for test in tests)


def _part(node: Node, key: str) -> Node:
    """Return the value of a key as a node; a row of a file has values without places of their own."""
    found = node.value.get(key)
    return found if isinstance(found, Node) else Node(node.line, node.column, found)


def _merged(config: Node, test: Node) -> Node:
    """Return a test with the variables, options and assertions of a scenario's entry; its own take precedence."""
    if not isinstance(config.value, dict) or not isinstance(test.value, dict):
        return test
    merged: dict[str, Any] = {**config.value, **test.value}
    for key in ("vars", "options", "metadata", "assert"):
        ours, theirs = _part(config, key), _part(test, key)
        if isinstance(ours.value, dict) and isinstance(theirs.value, dict):
            merged[key] = replace(theirs, value={**ours.value, **theirs.value}, keys={**ours.keys, **theirs.keys})
        elif isinstance(ours.value, list) and isinstance(theirs.value, list):
            merged[key] = replace(theirs, value=[*ours.value, *theirs.value])
    return replace(test, value=merged, keys={**config.keys, **test.keys})
