"""Build the cases of a suite from validated forms: render prompts and assertions, add defaults, and assign ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from harness.core.errors import HarnessError, SuiteError
from harness.core.suite import Assertion, Case, Message, Role, Split
from harness.core.yaml import Document, nearest, parse_yaml, raise_all, shown
from harness.scoring.assertion_type import AssertionType, Need
from harness.scoring.registry import find, is_negated, needs
from harness.scoring.transforms import is_plain
from harness.scoring.values import from_file, plain
from harness.suites.assertions import IGNORED, AssertionForm, is_known_later
from harness.suites.case_ids import check_ids, digest, numbered, without_repeats
from harness.suites.forms import UNSUPPORTED, CaseForm, DefaultsForm
from harness.suites.notices import Notices, UnsupportedError, marked
from harness.suites.promptfoo.files import Files, local_name
from harness.suites.promptfoo.prompts import Prompt, looks_like_conversation, messages, user_message
from harness.suites.promptfoo.red_teams import attacked, is_attack
from harness.suites.promptfoo.templates import MARK, MissingVariableError, Templates
from harness.suites.promptfoo.variables import combinations, resolved

STUB = "TODO"
"""The prompt of a case that the user has not written yet. Such cases are left out and counted."""
TRANSFORMS = ("transform", "postprocess")
"""Options of promptfoo that change the answer before it is judged; the second is the old name of the first."""
DATA = (".json", ".yaml", ".yml")
MOST_LABEL = 60
"""Longest label by which a message names a prompt."""
MAX_CASES = 20_000
"""Largest number of cases of a suite."""

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
    """Holds the defaults."""
    prompts: list[Prompt]
    has_prompts: bool
    """Whether the suite lists prompts, even if none of them is supported."""
    files: Files
    notices: Notices
    templates: Templates
    redteam: Any
    """The value of the key `redteam`; None if the suite is no red team."""
    have_prompts: bool
    """Whether a provider is asked only some of the prompts."""


def assemble(sources: Iterable[WrittenCase], context: SuiteContext) -> tuple[Case, ...]:
    """Build all cases of a suite. One error lists all mistakes; another lists all repeated ids."""
    cases: list[tuple[Case, Document]] = []
    problems: list[HarnessError] = []
    for source in sources:
        if _is_stub(source.form):
            context.notices.stub(source.form.id or "a case", source.document.place(("prompt",)))
            continue
        try:
            cases.extend((case, source.document) for case in cases_of(source, context))
        except HarnessError as problem:
            problems.append(problem)
        check_cases(len(cases), source.document)
    raise_all(problems)
    context.notices.raise_unsupported()
    if not cases:
        raise SuiteError(
            "the suite has no case with a prompt and a supported assertion",
            remedy=" ".join(context.notices.sentences()),
        )
    if context.notices.skip:
        cases = without_repeats(cases, context.notices)
    cases = numbered(cases)
    check_ids(cases)
    return tuple(case for case, _ in cases)


def check_cases(number: int, document: Document) -> None:
    """Refuse the case in `document` if it is beyond the largest number of cases of a suite."""
    if number > MAX_CASES:
        what = f"up to here, the suite has {number:,} cases, more than {MAX_CASES:,}"
        raise document.wrong(what, "Take a sample of them.", ())


def _is_stub(form: CaseForm) -> bool:
    """Whether a case is not written yet: its prompt is the stub, or its last message, behind a system message."""
    before = form.messages[:-1] if form.messages else []
    return form.prompt == STUB or (bool(before) and form.messages is not None and form.messages[-1].content == STUB)


def cases_of(source: WrittenCase, context: SuiteContext) -> Iterator[Case]:
    """Yield the cases of one written case: one for each combination of its variables' values and each prompt.

    Raises:
        HarnessError: the case has a mistake.
    """
    notices = context.notices
    if not is_supported(source, context):
        notices.left_out += 1
        return
    for variables in _combinations(source, context):
        try:
            yield from _CaseBuilder(source, context, variables).cases()
        except UnsupportedError as missing:
            notices.unsupported(str(missing), source.document.place())
            notices.left_out += 1


def _combinations(source: WrittenCase, context: SuiteContext) -> Iterator[dict[str, Any]]:
    """Yield the variables of each case that a written case stands for."""
    form, defaults, document = source.form, context.defaults, source.document
    written = {**defaults.vars, **form.vars}
    try:
        is_one = form.options.disable_var_expansion or defaults.options.disable_var_expansion
        yield from [written] if is_one else combinations(written, context.files, document)
    except UnsupportedError as missing:
        context.notices.unsupported(str(missing), document.place(("vars",)))
        context.notices.left_out += 1
    except ValueError as problem:
        message, _, remedy = str(problem).partition("\n")
        raise document.wrong(message, remedy, ("vars",)) from None


def is_supported(source: WrittenCase, context: SuiteContext) -> bool:
    """Add notices about ignored and unsupported keys of a case. Return False if a key is unsupported."""
    missing, notices = False, context.notices
    for form, document in ((context.defaults, context.document), (source.form, source.document)):
        for part, location in ((form, ()), (form.options, ("options",))):
            for name in marked(part, IGNORED):
                notices.ignore(name, document.place((*location, name), key=True))
            for name in (*marked(part, UNSUPPORTED), *_code_in(part)):
                notices.unsupported(name, document.place((*location, name), key=True))
                missing = True
    return not missing


def _code_in(part: BaseModel) -> Iterator[str]:
    """Yield the transforms of a case's options that are code."""
    for name in TRANSFORMS:
        written = getattr(part, name, None)
        if written is not None and not is_plain(written):
            yield name


class _CaseBuilder:
    """Build the cases of one written case with one set of variables: one for each of its prompts."""

    def __init__(self, source: WrittenCase, context: SuiteContext, variables: dict[str, Any]) -> None:
        self.form, self.document, self.context = source.form, source.document, context
        self.defaults, self.notices = context.defaults, context.notices
        self.variables: dict[str, Any] = self.with_place(
            lambda: resolved(variables, context.files, source.document, self.attacked(variables)),
            ("vars",),
            source.document,
        )
        reference = self.own_or_default("reference")
        self.reference = None if reference is None else self.fill(reference, ("reference",), self.document)
        self.choices = tuple(self.own_or_default_choices())

    def attacked(self, variables: dict[str, Any]) -> str | None:
        """Return the name of the variable with the attack, if the case belongs to a red team.

        Raises:
            UnsupportedError: what promptfoo would ask is not certain.
        """
        metadata = {**_mapping(self.defaults.metadata), **_mapping(self.form.metadata)}
        if self.context.redteam is None and not is_attack((*self.default_assertions, *self.form.assertions), metadata):
            return None
        if any(isinstance(value, str) and MARK.search(value) for value in variables.values()):
            raise UnsupportedError("templates in the attacks of a red team")
        if self.form.messages is not None or self.form.prompt is not None:
            templates = [self.form.prompt] if self.form.prompt is not None else []
        else:
            templates = [prompt.text for prompt in self.chosen_prompts(variables)]
        return attacked(templates, variables, self.context.redteam)

    def cases(self) -> Iterator[Case]:
        assertions = tuple(self.assertions())
        if not self.asserts(assertions):
            return
        labels = self.labels(assertions)
        place = self.document.place()
        for asked in self.conversations():
            yield Case(id=self.form.id or digest(asked, assertions, labels["threshold"]), messages=asked,
                       assertions=assertions, line=place.line or 0, file=place.file, **labels)  # fmt: skip

    def asserts(self, assertions: tuple[Assertion, ...]) -> bool:
        """Whether an assertion can make the case fail. A case that has no such assertion is left out and counted.

        Raises:
            SuiteError: the case is written without such assertions, and unsupported features are not skipped.
        """
        written = [*self.default_assertions, *self.form.assertions]
        if any(assertion.weight for assertion in assertions):
            return True
        if written and not assertions:
            self.notices.left_out += 1
        elif self.notices.skip:
            self.notices.without_assertions += 1
        else:
            self.check_asserts(assertions)
        return False

    @property
    def transforms(self) -> list[str]:
        """The plain transforms of the case, or those of defaultTest, which are applied before those of assertions."""
        own, default = self.form.options, self.defaults.options
        return [found for name in TRANSFORMS if (found := getattr(own, name) or getattr(default, name))][:1]

    @property
    def default_assertions(self) -> list[AssertionForm]:
        return [] if self.form.options.disable_default_asserts else self.defaults.assertions

    def check_asserts(self, assertions: tuple[Assertion, ...]) -> None:
        if not assertions:
            remedy = "Add assert: [{type: icontains, value: ...}], or leave such cases out with --skip-unsupported."
            raise self.document.wrong("this case has no assertions", remedy)
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
            "vars": plain(self.variables) if needs(assertions, Need.VARIABLES) else {},
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
        document = self.document if own is not None else self.context.document
        seen: set[str] = set()
        for i, written in enumerate((self.defaults.choices if own is None else own) or ()):
            text, location = self.fill(written, ("choices", i), document), ("choices", i)
            if not text.strip() or text.strip() in seen:
                what = f"the choice {shown(text)} is given twice" if text.strip() else "this choice is empty"
                raise document.wrong(what, "Give every choice a different text.", location)
            seen.add(text.strip())
            yield text

    # --- prompts ---

    def conversations(self) -> Iterator[tuple[Message, ...]]:
        """Yield what the case asks, for each of its prompts. Prompts that are not supported are noted and left out."""
        if self.form.messages is not None:
            yield tuple(Message(m.role, self.fill(m.content, ("messages", i, "content"), self.document))
                        for i, m in enumerate(self.form.messages))  # fmt: skip
        elif self.form.prompt is not None:
            text = self.whole(self.form.prompt)
            make = messages if looks_like_conversation(text) else user_message
            yield self.rendered(lambda: make(text, self.variables, self.context.templates), ("prompt",))
        else:
            yield from self.asked()

    def asked(self) -> Iterator[tuple[Message, ...]]:
        if self.context.have_prompts and (self.form.providers or self.defaults.providers):
            raise UnsupportedError("cases that choose among providers with prompts of their own")
        prompts = self.chosen_prompts(self.variables)
        for i, prompt in enumerate(prompts):
            make = partial(messages, self.whole(prompt.text), self.variables, self.context.templates)
            try:
                # A missing variable is a mistake in the case, not in the prompt.
                yield self.rendered(make, (), f"prompts[{i}]: " if self.context.prompts else "")
            except UnsupportedError as missing:
                self.notices.unsupported(f"{missing}{self.which(prompt)}", self.document.place())
                self.notices.left_out += 1

    def which(self, prompt: Prompt) -> str:
        """Return how a message names a prompt of the suite: by its label or number; empty if there is only one."""
        if len(self.context.prompts) < 2:
            return ""
        is_named = prompt.label != prompt.text and len(prompt.label) <= MOST_LABEL
        return f" in the prompt {shown(prompt.label) if is_named else self.context.prompts.index(prompt) + 1}"

    def chosen_prompts(self, variables: dict[str, Any]) -> list[Prompt]:
        """Return the suite's prompts that the case chooses; without prompts, its variable `prompt`."""
        if not self.context.has_prompts:
            if "prompt" in variables:
                return [Prompt("{{prompt}}", "")]
            raise self.document.wrong(
                "this case has no prompt", "Add prompt: or messages: to it, or prompts: to the suite."
            )
        names = self.form.prompts if self.form.prompts is not None else self.defaults.prompts
        if names is None and not self.context.prompts:
            raise UnsupportedError("cases without a supported prompt")
        if names is None:
            return self.context.prompts
        found = [prompt for prompt in self.context.prompts if any(prompt.is_named(name) for name in names)]
        if not found:
            raise UnsupportedError("prompts that are not in the suite")
        return found

    def whole(self, text: str) -> str:
        own, default = self.form.options, self.defaults.options
        return (own.prefix or default.prefix) + text + (own.suffix or default.suffix)

    def rendered(self, make: Callable[[], tuple[Message, ...]], location: Location, about: str = "") -> Any:
        found: tuple[Message, ...] = self.with_place(make, location, self.document, about)
        if not found[-1].content.strip():
            raise UnsupportedError("prompts that are empty")
        return found

    # --- assertions ---

    def assertions(self) -> Iterator[Assertion]:
        default, own = self.context.document, self.document
        yield from self.build_assertions(self.default_assertions, ("assert",), default)
        yield from self.build_assertions(self.form.assertions, ("assert",), own)

    def build_assertions(
        self, forms: Iterable[AssertionForm], location: Location, document: Document
    ) -> Iterator[Assertion]:
        for i, form in enumerate(forms):
            try:
                found = self.assertion(form, (*location, i), document)
            except UnsupportedError as missing:
                self.notices.unsupported(str(missing), document.place((*location, i)))
                continue
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
            () if children else tuple(map(str, (*self.transforms, *filter(None, [form.transform])))),
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
        value = form.value
        if from_file(value):
            value = self.read_value(value, location, document)
        elif kind.value.has_variables:
            value = self.fill_nested(value, location, document)
        if value is not form.value or is_known_later(kind, form.value):
            value = self.with_place(lambda: kind.read(form.type, value), location, document)
            if missing := kind.value.unsupported(value):
                raise UnsupportedError(f"{form.type} {missing}")
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
            file = kind.value.file(value) if kind.value.file else ""
            text = self.context.files.text(file.removeprefix("./"), document, location) if file else ""
            if kind.value.unsupported_file and (missing := kind.value.unsupported_file(text)):
                raise UnsupportedError(f"{kind.name} {missing}")
            if kind.value.misnamed and (problem := kind.value.misnamed(value, text) if file else ""):
                what, _, remedy = problem.partition("\n")
                raise document.wrong(f"{kind.name} {what}", remedy, location)
            self.notices.runs_code(f"{kind.name} {name}", document.place(location))
        if isinstance(value, dict) and "reference" in value:
            return {**value, "reference": self.fill_nested(value["reference"], (*location, "reference"), document)}
        return self.fill(value, location, document) if isinstance(value, str) else value

    def read_value(self, reference: str, location: Location, document: Document) -> Any:
        """Return the value in a file. It is not a template: promptfoo replaces no variables in it."""
        name = local_name(reference)
        text = self.context.files.text(name, document, location)
        return parse_yaml(text, name, SuiteError).value if PurePath(name).suffix in DATA else text.strip()

    def fill_nested(self, value: Any, location: Location, document: Document) -> Any:
        """Replace the variables in a value and in its lists and mappings. Return the same object if nothing changes."""
        if isinstance(value, str):
            return self.fill(value, location, document)
        if isinstance(value, list):
            found = [self.fill_nested(item, (*location, i), document) for i, item in enumerate(value)]
            return value if found == value else found
        if isinstance(value, dict):
            replaced = {name: self.fill_nested(inner, (*location, name), document) for name, inner in value.items()}
            return value if replaced == value else replaced
        return value

    def fill(self, text: str, location: Location, document: Document) -> str:
        return str(self.with_place(lambda: self.context.templates.render(text, self.variables), location, document))

    def with_place(self, make: Callable[[], Any], location: Location, document: Document, about: str = "") -> Any:
        """Call `make`, and turn its ValueError into a `SuiteError` with a place.

        If unsupported features are skipped, a missing variable is one of them.
        """
        try:
            return make()
        except ValueError as problem:
            if self.notices.skip and isinstance(problem, MissingVariableError):
                raise UnsupportedError("variables that are not defined") from None
            message, _, remedy = str(problem).partition("\n")
            raise document.wrong(about + message, remedy, location) from None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _missing(form: AssertionForm, kind: AssertionType) -> str:
    """Return the name of the assertion's feature that is not supported; empty if all features are supported."""
    if form.transform is not None and not is_plain(form.transform):
        return "transform"
    if form.normalize_unicode not in (None, False):
        return "normalizeUnicode"
    unsupported = kind.value.unsupported(form.value)
    return f"{form.type} {unsupported}" if unsupported else ""
