"""Build the cases of a suite from validated forms: replace variables, add defaults, and assign ids."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from harness.core.errors import HarnessError, SuiteError
from harness.core.suite import Assertion, Case, Message, Role, Split
from harness.core.yaml import Document, nearest, parse_yaml, raise_all, shown
from harness.scoring.assertion_type import AssertionType, Need
from harness.scoring.registry import find, is_negated, needs
from harness.scoring.values import FILE, from_file
from harness.suites.assertions import IGNORED, AssertionForm, is_known_later
from harness.suites.case_files import Read, read_referenced
from harness.suites.forms import UNSUPPORTED, CaseForm, DefaultsForm
from harness.suites.notices import Notices, marked

MAX_FILLED = 256 * 1024
"""Maximum number of characters of a text after its variables are replaced; longer texts could exhaust memory."""
VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_-]*)\s*\}\}")
STUB = "TODO"
"""The prompt of a case that the user has not written yet. Such cases are left out and counted."""
TEMPLATE = re.compile(r"\{\{|\{%")
DATA = (".json", ".yaml", ".yml")

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class WrittenCase:
    """A case as it is written in the suite: its validated form, and its document, which gives places to errors."""

    form: CaseForm
    document: Document


@dataclass(frozen=True)
class SuiteContext:
    """The parts of a suite that all of its cases use."""

    defaults: DefaultsForm
    document: Document
    prompts: list[str]
    read: Read
    notices: Notices


def fill(text: str, variables: Mapping[str, str]) -> str:
    """Replace every `{{name}}` by the variable's text. Inserted text is not searched again, and nothing is evaluated.

    Raises ValueError if a variable is not defined or the text becomes too long. The second line of its
    message is the remedy.
    """
    parts = VARIABLE.split(text)
    for i in range(1, len(parts), 2):
        if parts[i] not in variables:
            raise ValueError(f"there is no variable {shown(parts[i])}\nDefine it under vars.")
        parts[i] = variables[parts[i]]
    if len(parts) > 1 and sum(map(len, parts)) > MAX_FILLED:
        raise ValueError(
            f"the text is longer than {MAX_FILLED} characters after its variables are replaced\nShorten it."
        )
    return "".join(parts)


def assemble(sources: Iterable[WrittenCase], context: SuiteContext) -> tuple[Case, ...]:
    """Build all cases of a suite. One error lists all mistakes; another lists all repeated ids."""
    cases: list[tuple[Case, Document]] = []
    problems: list[HarnessError] = []
    for source in sources:
        if source.form.prompt == STUB:
            context.notices.stub(source.form.id or "a case", source.document.place(("prompt",)))
            continue
        try:
            cases.extend((case, source.document) for case in _CaseBuilder(source, context).cases())
        except HarnessError as problem:
            problems.append(problem)
    raise_all(problems)
    context.notices.raise_unsupported()
    if not cases:
        raise SuiteError(
            "the suite has no case with a prompt and a supported assertion",
            remedy=" ".join(context.notices.sentences()),
        )
    _check_ids(cases)
    return tuple(case for case, _ in cases)


def _check_ids(cases: list[tuple[Case, Document]]) -> None:
    first: dict[str, Document] = {}
    problems = []
    for case, document in cases:
        if case.id in first:
            places = f"{first[case.id].place()} and {document.place()}"
            problems.append(document.wrong(f"two cases have the id {shown(case.id)}: {places}",
                                           "Give each its own id, or remove one of them.", ("id",)))  # fmt: skip
        first.setdefault(case.id, document)
    raise_all(problems)


class _CaseBuilder:
    """Build the cases of one written case: one for each of its prompts."""

    def __init__(self, source: WrittenCase, context: SuiteContext) -> None:
        self.form, self.document, self.context = source.form, source.document, context
        self.defaults, self.notices = context.defaults, context.notices
        self.variables = {**self.defaults.vars, **source.form.vars}
        reference = self.own_or_default("reference")
        self.reference = None if reference is None else self.fill(reference, ("reference",), self.document)
        self.choices = tuple(self.own_or_default_choices())

    def cases(self) -> Iterator[Case]:
        is_supported = self.is_supported()
        assertions = tuple(self.assertions())
        if (self.form.assertions or self.defaults.assertions) and not (assertions and is_supported):
            self.notices.left_out += 1
            return
        self.check_asserts(assertions)
        conversations = list(self.conversations())
        labels = self.labels(assertions)
        for number, messages in enumerate(conversations, 1):
            place = self.document.place()
            case = Case(id=self.form.id or digest(messages, assertions, labels["threshold"]), messages=messages,
                        assertions=assertions, line=place.line or 0, file=place.file, **labels)  # fmt: skip
            is_numbered = self.form.id and len(conversations) > 1
            yield replace(case, id=f"{case.id}-{number}") if is_numbered else case

    def is_supported(self) -> bool:
        """Add notices about ignored and unsupported keys of the case. Return False if a key is unsupported."""
        missing = False
        for form, document, at in (
            (self.defaults, self.context.document, ("defaultTest",)),
            (self.form, self.document, ()),
        ):
            for part, location in ((form, at), (form.options, (*at, "options"))):
                for name in marked(part, IGNORED):
                    self.notices.ignore(name, document.place((*location, name), key=True))
                for name in marked(part, UNSUPPORTED):
                    self.notices.unsupported(name, document.place((*location, name), key=True))
                    missing = True
        return not missing

    def check_asserts(self, assertions: tuple[Assertion, ...]) -> None:
        if not assertions:
            raise self.document.wrong("this case has no assertions", "Add assert: [{type: icontains, value: ...}].")
        if not any(assertion.weight for assertion in assertions):
            remedy = "Give one of them a weight above 0."
            raise self.document.wrong("all assertions of this case have weight 0", remedy, ("assert",))

    def labels(self, assertions: tuple[Assertion, ...]) -> dict[str, Any]:
        """Return the fields of the case other than id, place, messages and assertions.

        A field that the case does not set has the suite's default or, without one, the built-in default.
        """
        form, defaults = self.form, self.defaults
        threshold = defaults.threshold if form.threshold is None else form.threshold
        return {
            "role": form.role or defaults.role or Role.LEARN,
            "split": form.split or defaults.split or Split.MAIN,
            "description": self.own_or_default("description") or "",
            "group": self.own_or_default("group") or "",
            "reference": self.reference,
            "choices": self.choices,
            "threshold": None if threshold is None else float(threshold),
            "critical": bool(defaults.critical if form.critical is None else form.critical),
            "vars": self.variables if needs(assertions, Need.VARIABLES) else {},
        }

    def own_or_default(self, name: str) -> str | None:
        own = getattr(self.form, name)
        found = getattr(self.defaults, name) if own is None else own
        return None if found is None else str(found)

    def own_or_default_choices(self) -> Iterator[str]:
        """Yield the case's choices, or the suite's default choices.

        Choices that differ only in surrounding white space are equal, because chat templates strip messages.
        """
        own = self.form.choices
        document, at = (self.document, ()) if own is not None else (self.context.document, ("defaultTest",))
        seen: set[str] = set()
        for i, written in enumerate((self.defaults.choices if own is None else own) or ()):
            text, location = self.fill(written, (*at, "choices", i), document), (*at, "choices", i)
            if not text.strip() or text.strip() in seen:
                what = f"the choice {shown(text)} is given twice" if text.strip() else "this choice is empty"
                raise document.wrong(what, "Give every choice a different text.", location)
            seen.add(text.strip())
            yield text

    # --- prompts ---

    def conversations(self) -> Iterator[tuple[Message, ...]]:
        if self.form.messages is not None:
            yield tuple(Message(m.role, self.fill(m.content, ("messages", i, "content"), self.document))
                        for i, m in enumerate(self.form.messages))  # fmt: skip
        elif self.form.prompt is not None:
            yield (Message("user", self.prompt(self.form.prompt, ("prompt",))),)
        elif self.context.prompts:
            for i, prompt in enumerate(self.context.prompts):
                # A missing variable is a mistake in the case, not in the prompt.
                yield (Message("user", self.prompt(prompt, (), f"prompts[{i}]: ")),)
        else:
            raise self.document.wrong(
                "this case has no prompt", "Add prompt: or messages: to it, or prompts: to the suite."
            )

    def prompt(self, text: str, location: Location, about: str = "") -> str:
        own, default = self.form.options, self.defaults.options
        full = (own.prefix or default.prefix) + text + (own.suffix or default.suffix)
        return self.fill(full, location, self.document, about)

    # --- assertions ---

    def assertions(self) -> Iterator[Assertion]:
        default, own = self.context.document, self.document
        yield from self.build_assertions(self.defaults.assertions, ("defaultTest", "assert"), default)
        yield from self.build_assertions(self.form.assertions, ("assert",), own)

    def build_assertions(
        self, forms: Iterable[AssertionForm], location: Location, document: Document
    ) -> Iterator[Assertion]:
        for i, form in enumerate(forms):
            found = self.assertion(form, (*location, i), document)
            if found is not None:
                yield found

    def assertion(self, form: AssertionForm, location: Location, document: Document) -> Assertion | None:
        """Build an assertion. If it is not supported, add a notice and return None."""
        kind = find(form.type)
        if kind is None or (missing := _missing(form, kind)):
            self.notices.unsupported(form.type if kind is None else missing, document.place(location))
            return None
        self.note_ignored(form, kind, location, document)
        children = tuple(self.build_assertions(form.children or (), (*location, "assert"), document))
        if Need.ASSERTIONS in kind.needs and not children:
            return None
        return Assertion(
            kind.name,
            self.value(form, kind, (*location, "value"), document),
            is_negated(form.type),
            0.0 if form.metric_only else float(form.weight),
            None if form.threshold is None or kind.threshold is None else float(form.threshold),
            self.fill(form.metric or "", (*location, "metric"), document),
            children,
        )

    def note_ignored(self, form: AssertionForm, kind: AssertionType, location: Location, document: Document) -> None:
        for name in marked(form, IGNORED):
            self.notices.ignore(name, document.place((*location, name), key=True))
        if form.threshold is not None and kind.threshold is None:
            self.notices.ignore(f"threshold of {kind.name}", document.place((*location, "threshold"), key=True))

    def value(self, form: AssertionForm, kind: AssertionType, location: Location, document: Document) -> Any:
        """Return the validated value of an assertion. A file is read, and variables are replaced, before validation."""
        if kind.value.code:
            return self.code(form.value, kind, location, document)
        if form.value is None and kind.value.or_reference:
            return self.among_choices(self.reference_value(form.type, location, document), kind, location, document)
        value = self.read_value(form.value, location, document) if from_file(form.value) else form.value
        if kind.value.has_variables:
            value = self.fill_nested(value, location, document)
        if value is not form.value or is_known_later(kind, form.value):
            value = self.with_place(lambda: kind.read(form.type, value), location, document)
        if Need.REFERENCE in kind.needs and self.reference is None:
            raise document.wrong(f"{form.type} needs a case with a reference", "Add reference: to the case.", location)
        return self.among_choices(value, kind, location, document)

    def among_choices(self, value: Any, kind: AssertionType, location: Location, document: Document) -> Any:
        if Need.CHOICES not in kind.needs or value in self.choices:
            return value
        if not self.choices:
            remedy = "Add choices: [..., ...] to the case, including the expected answer."
            raise document.wrong(f"{kind.name} needs a case with choices", remedy, location)
        raise document.wrong(f"{shown(value)} is not among the case's choices", nearest(value, self.choices), location)

    def reference_value(self, name: str, location: Location, document: Document) -> str:
        if self.reference is None:
            raise document.wrong(
                f"{name} needs a value, or a case with a reference", "Add value: or reference:.", location
            )
        return self.reference

    def code(self, value: Any, kind: AssertionType, location: Location, document: Document) -> Any:
        """Return the value of an assertion that can run code. If it names a Python file, check that the file exists."""
        if name := kind.code_in(value):
            file = name.partition(":")[0]
            if file.endswith(".py"):
                read_referenced(file, self.context.read, document, location)
            self.notices.runs_code(f"{kind.name} {name}", document.place(location))
        if isinstance(value, dict) and "reference" in value:
            return {**value, "reference": self.fill_nested(value["reference"], (*location, "reference"), document)}
        return value

    def read_value(self, reference: str, location: Location, document: Document) -> Any:
        text = read_referenced(reference, self.context.read, document, location)
        name = reference.removeprefix(FILE)
        return parse_yaml(text, name, SuiteError).value if PurePath(name).suffix in DATA else text.strip()

    def fill_nested(self, value: Any, location: Location, document: Document) -> Any:
        """Replace the variables in a value and in its lists and mappings. Return the same object if nothing changes."""
        if isinstance(value, str):
            return self.fill(value, location, document) if "{{" in value or "{%" in value else value
        if isinstance(value, list):
            found = [self.fill_nested(item, (*location, i), document) for i, item in enumerate(value)]
            return value if found == value else found
        if isinstance(value, dict):
            replaced = {name: self.fill_nested(inner, (*location, name), document) for name, inner in value.items()}
            return value if replaced == value else replaced
        return value

    def fill(self, text: str, location: Location, document: Document, about: str = "") -> str:
        if TEMPLATE.search(text) and TEMPLATE.search(VARIABLE.sub("", text)):
            self.notices.ignore("templates other than {{name}}", document.place(location))
        return str(self.with_place(lambda: fill(text, self.variables), location, document, about))

    def with_place(self, make: Callable[[], Any], location: Location, document: Document, about: str = "") -> Any:
        """Call `make`, and turn its ValueError into a `SuiteError` with a place."""
        try:
            return make()
        except ValueError as problem:
            message, _, remedy = str(problem).partition("\n")
            raise document.wrong(about + message, remedy, location) from None


def _missing(form: AssertionForm, kind: AssertionType) -> str:
    """Return the name of the assertion's feature that is not supported; empty if all features are supported."""
    if form.transform is not None or form.normalize_unicode not in (None, False):
        return "transform" if form.transform is not None else "normalizeUnicode"
    unsupported = kind.value.unsupported(form.value)
    return f"{form.type} {unsupported}" if unsupported else ""


def digest(messages: tuple[Message, ...], assertions: tuple[Assertion, ...], threshold: float | None = None) -> str:
    """Return ten hexadecimal digits that identify a case's messages, assertions and threshold."""
    content: list[Any] = [[(m.role, m.content) for m in messages], [_content(a) for a in assertions]]
    # The threshold is added only if there is one, so that ids of cases without a threshold do not change.
    content += [] if threshold is None else [threshold]
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:10]


def _content(assertion: Assertion) -> list[Any]:
    content = [assertion.name, assertion.value, assertion.weight, assertion.threshold]
    more = [assertion.metric, [_content(child) for child in assertion.children]]
    return content + more if any(more) else content
