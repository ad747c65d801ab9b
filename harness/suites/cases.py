"""Forms to records: variables filled in, defaults joined, ids given."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import HarnessError
from harness.records import Assertion, Case, Message, Role, Split
from harness.suites.forms import AssertionForm, CaseForm, DefaultsForm
from harness.yamltext import Document, raise_all, shown

MAX_FILLED = 256 * 1024
"""Characters of a text with its variables filled in: a long text named often would exhaust memory."""
VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_-]*)\s*\}\}")


@dataclass(frozen=True)
class Source:
    """A case as written: its form, and the document it stands in, for places in errors."""

    form: CaseForm
    document: Document


def fill(text: str, variables: Mapping[str, str]) -> str:
    """`{{name}}` replaced by its text, once: what was filled in is not read again, and nothing is evaluated.

    Raises ValueError, with a remedy in its second line, when there is no such variable or the text grows too long.
    """
    parts = VARIABLE.split(text)
    for i in range(1, len(parts), 2):
        if parts[i] not in variables:
            raise ValueError(f"there is no variable {shown(parts[i])}\nGive it under vars.")
        parts[i] = variables[parts[i]]
    if len(parts) > 1 and sum(map(len, parts)) > MAX_FILLED:
        raise ValueError(f"grows beyond {MAX_FILLED} characters when its variables are filled in\nShorten it.")
    return "".join(parts)


def assemble(sources: Iterable[Source], defaults: DefaultsForm, head: Document, prompts: list[str]) -> tuple[Case, ...]:
    """All cases of a suite; raises what is wrong with any of them, and when two have the same id."""
    cases: list[tuple[Case, Document]] = []
    problems: list[HarnessError] = []
    for source in sources:
        try:
            cases.extend((case, source.document) for case in _Assembly(source, defaults, head, prompts).cases())
        except HarnessError as problem:
            problems.append(problem)
    raise_all(problems)
    _check_ids(cases)
    return tuple(case for case, _ in cases)


def _check_ids(cases: list[tuple[Case, Document]]) -> None:
    first: dict[str, Document] = {}
    problems = []
    for case, document in cases:
        if case.id in first:
            places = f"{first[case.id].place()} and {document.place()}"
            problems.append(document.wrong(f"two cases have the id {shown(case.id)}: {places}",
                                           "Give each an id of its own, or remove one of them.", ("id",)))  # fmt: skip
        first.setdefault(case.id, document)
    raise_all(problems)


class _Assembly:
    """One written case on its way to records."""

    def __init__(self, source: Source, defaults: DefaultsForm, head: Document, prompts: list[str]) -> None:
        self.form, self.document = source.form, source.document
        self.defaults, self.head, self.prompts = defaults, head, prompts
        self.variables = {**defaults.vars, **source.form.vars}

    def cases(self) -> Iterator[Case]:
        assertions = tuple(self.assertions())
        if not assertions:
            raise self.document.wrong("this case asserts nothing", "Add assert: [{type: icontains, value: ...}].")
        conversations = list(self.conversations())
        for number, messages in enumerate(conversations, 1):
            case = Case(id=self.form.id or digest(messages, assertions), messages=messages, assertions=assertions,
                        line=self.document.place().line or 0, **self.labels())  # fmt: skip
            several = self.form.id and len(conversations) > 1
            yield replace(case, id=f"{case.id}-{number}") if several else case

    def labels(self) -> dict[str, Any]:
        """What says how to count the case: its own where given, else the suite's default, else the record's."""
        form, defaults = self.form, self.defaults
        reference = self.chosen("reference")
        return {
            "role": form.role or defaults.role or Role.LEARN,
            "split": form.split or defaults.split or Split.MAIN,
            "description": self.chosen("description") or "",
            "group": self.chosen("group") or "",
            "reference": None if reference is None else self.filled(reference, ("reference",), self.document),
        }

    def chosen(self, name: str) -> str | None:
        own = getattr(self.form, name)
        found = getattr(self.defaults, name) if own is None else own
        return None if found is None else str(found)

    def conversations(self) -> Iterator[tuple[Message, ...]]:
        if self.form.messages is not None:
            yield tuple(Message(m.role, self.filled(m.content, ("messages", i, "content"), self.document))
                        for i, m in enumerate(self.form.messages))  # fmt: skip
        elif self.form.prompt is not None:
            yield (Message("user", self.filled(self.form.prompt, ("prompt",), self.document)),)
        elif self.prompts:
            for i, prompt in enumerate(self.prompts):
                # A missing variable is the case's mistake, not the prompt's.
                yield (Message("user", self.filled(prompt, (), self.document, f"prompts[{i}]: ")),)
        else:
            raise self.document.wrong("this case asks nothing", "Add prompt: or messages:, or prompts: to the suite.")

    def assertions(self) -> Iterator[Assertion]:
        for i, form in enumerate(self.defaults.assertions):
            yield self.assertion(form, ("defaultTest", "assert", i, "value"), self.head)
        for i, form in enumerate(self.form.assertions):
            yield self.assertion(form, ("assert", i, "value"), self.document)

    def assertion(self, form: AssertionForm, location: tuple[str | int, ...], document: Document) -> Assertion:
        value = form.value
        if isinstance(value, str):
            value = self.filled(value, location, document)
        elif isinstance(value, list):
            value = [self.filled(item, (*location, i), document) for i, item in enumerate(value)]
        kind = form.type.removeprefix("not-")
        if kind == "regex":
            _check_pattern(value, document, location)
        return Assertion(kind, value, form.type != kind, float(form.weight), form.threshold)

    def filled(self, text: str, location: tuple[str | int, ...], document: Document, about: str = "") -> str:
        try:
            return fill(text, self.variables)
        except ValueError as problem:
            message, _, remedy = str(problem).partition("\n")
            raise document.wrong(about + message, remedy, location) from None


def _check_pattern(pattern: str, document: Document, location: tuple[str | int, ...]) -> None:
    import regex  # 20 ms that suites without patterns need not pay

    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError, ValueError) as problem:
        remedy = "In YAML, put patterns in single quotes: backslashes stay as they are."
        raise document.wrong(f"not a regular expression: {problem}", remedy, location) from None


def digest(messages: tuple[Message, ...], assertions: tuple[Assertion, ...]) -> str:
    """Ten hexadecimal digits over what a case asks and what it asserts."""
    content = [[(m.role, m.content) for m in messages],
               [(a.name, a.value, a.weight, a.threshold) for a in assertions]]  # fmt: skip
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:10]
