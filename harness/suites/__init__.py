"""Read a suite: test prompts, their assertions, and training rows.

`load_suite` reads a suite's folder. `parse_suite` parses the text of a suite.yaml, with a function that reads the other
files. Mistakes are raised as `SuiteError`, several in one error if possible, with files, lines, columns and remedies.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from harness.core.errors import HarnessError, Place, SuiteError
from harness.core.suite import FILE_NAME, Case, Decoding, Example, JudgeRef, Suite
from harness.core.yaml import Document, Node, fit, nearest, parse_yaml, raise_all, read_bytes
from harness.scoring.values import FILE
from harness.suites.assertions import IGNORED
from harness.suites.case_files import Read, ReadBytes, bytes_reader, read_referenced, reader, with_whole_characters
from harness.suites.cases import SuiteContext, WrittenCase, assemble, check_cases
from harness.suites.forms import UNSUPPORTED, CaseForm, DefaultsForm, SuiteForm, SuiteHead
from harness.suites.notices import Notices, UnsupportedError, marked
from harness.suites.other_tasks import refuse_task
from harness.suites.promptfoo.files import Files, files_in, local_name
from harness.suites.promptfoo.prompts import read_prompts
from harness.suites.promptfoo.providers import (
    Providers,
    additions,
    asked_of_any,
    have_prompts,
    read_providers,
    tools,
    transforms,
)
from harness.suites.promptfoo.references import dereferenced
from harness.suites.promptfoo.templates import Templates
from harness.suites.promptfoo.tests import case_documents
from harness.suites.promptfoo.written_cases import known_keys, with_files
from harness.suites.rows import WITHOUT_OPTIONS, ReadRows, raise_mistakes, read_rows

__all__ = ["load_examples", "load_suite", "parse_examples", "parse_suite"]
TRAINING_FILE = "train.jsonl"
CONFIGURATIONS = ("promptfooconfig.yaml", "promptfooconfig.yml", "promptfooconfig.json")
ROWS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def load_suite(path: Path | str, *, skip_unsupported: bool = False, root: Path | None = None) -> Suite:
    """Read the suite in a folder (or the folder's suite.yaml).

    If the suite uses features of promptfoo that the harness does not support, one error names all their places. With
    `skip_unsupported`, these features are skipped and counted in the suite's notices. All files must be in the suite's
    folder or, if it is given, in the folder `root`.

    Raises:
        SuiteError: the folder holds no suite, or the suite has mistakes.
    """
    given = Path(path)
    if given.is_file() or not (given / FILE_NAME).exists():
        refuse_task(given)
    _refuse_others(given)
    is_file = given.suffix in (".yaml", ".yml") or (given.suffix == ".json" and given.is_file())
    file = given / FILE_NAME if given.is_dir() or not is_file else given
    folder = file.parent
    try:
        text = reader(folder, root)(file.name)
        text = with_whole_characters(text) if file.suffix == ".json" else text
    except FileNotFoundError:
        raise _no_such_suite(given) from None
    name = folder.resolve().name
    return parse_suite(
        text,
        file.name,
        files_in(folder, root),
        name=name,
        folder=str(folder),
        skip_unsupported=skip_unsupported,
        read_bytes=bytes_reader(folder, root),
    )


def load_examples(path: Path | str) -> tuple[Example, ...]:
    """Read the training rows of a file; raise `SuiteError` for mistakes."""
    file = Path(path)
    try:
        return parse_examples(read_bytes(file, file.name, SuiteError), file.name)
    except FileNotFoundError:
        remedy = "Name a file of training rows."
        raise SuiteError("there is no such file", remedy=remedy, place=Place(str(path))) from None


def parse_suite(
    text: str,
    file: str,
    read: Read | Files,
    *,
    name: str = "",
    folder: str = "",
    skip_unsupported: bool = False,
    read_bytes: ReadBytes | None = None,
) -> Suite:
    """Parse the text of a suite.yaml; `read` returns the text of the file with a given name.

    `read_bytes` returns the content of the file with the training rows (default: the text that `read` returns).
    """
    files, notices = read if isinstance(read, Files) else Files(read), Notices(skip=skip_unsupported)
    document = known_keys(dereferenced(parse_yaml(text, file, SuiteError), text, files.referenced), SuiteHead, notices)
    head = fit(SuiteHead, document)
    providers = read_providers(document, files)
    _note(head, document, notices)
    _note_providers(providers, document, notices)
    _check_repeats(head, document)
    defaults = _defaults(document, files, notices)
    prompts = asked_of_any(document, providers, read_prompts(document, files, notices))
    has_prompts = bool(head.prompts)
    sources = _sources(case_documents(document, files, notices), files, notices, has_prompts=has_prompts)
    templates = Templates(head.nunjucks_filters if isinstance(head.nunjucks_filters, dict) else ())
    context = SuiteContext(
        *defaults, prompts, has_prompts, files, notices, templates, head.redteam, have_prompts(providers)
    )
    cases = assemble(sources, context)
    examples = _examples(head, document, read_bytes or (lambda name: files.read(name).encode()), notices)
    if examples and head.system_prompt is not None and not any(_has(head.system_prompt, row) for row in examples):
        notices.untrained_system_prompt(document.place(("system_prompt",), key=True))
    if head.system_prompt is None and (with_system := _unasked_system_prompts(examples, cases)):
        notices.unasked_system_prompts(with_system)
    return Suite(
        name=name,
        folder=folder,
        description=head.description,
        cases=cases,
        examples=examples,
        objective=head.objective,
        margin=float(head.margin),
        decoding=Decoding(
            int(head.decoding.max_new_tokens), tuple(head.decoding.stop), float(head.decoding.temperature)
        ),
        system_prompt=head.system_prompt,
        repeats=int(head.repeats),
        reducer=head.reducer,
        notices=tuple(notices.sentences()),
        judge=JudgeRef(**head.judge.model_dump()) if head.judge else None,
        embedder=head.embedder,
        file=file,
    )


def _has(system_prompt: str, row: Example) -> bool:
    return any(message.role == "system" and message.content == system_prompt for message in row.messages)


def _unasked_system_prompts(examples: tuple[Example, ...], cases: tuple[Case, ...]) -> tuple[Example, ...]:
    """Return the training rows with a system message, if no case is asked with one."""
    if any(message.role == "system" for case in cases for message in case.messages):
        return ()
    return tuple(row for row in examples if row.messages[0].role == "system" and row.messages[0].content.strip())


def _note(head: SuiteForm, document: Document, notices: Notices) -> None:
    for name in marked(head, IGNORED):
        notices.ignore(name, document.place((name,), key=True))
    for name in marked(head, UNSUPPORTED):
        if notices.skip:
            remedy = "Remove them, if they change no prompt."
            raise document.wrong(f"{name} can change every case, so they cannot be skipped", remedy, (name,), key=True)
        notices.unsupported(name, document.place((name,), key=True))


def _note_providers(providers: Providers, document: Document, notices: Notices) -> None:
    for node in tools(providers):
        notices.ignore("the tools of a provider", replace(document, root=node).place())
    for what, node in additions(document, providers):
        notices.unsupported(what, replace(document, root=node).place())
    for node in transforms(providers):
        part = replace(document, root=node)
        if notices.skip:
            remedy = "Remove it, or write it as defaultTest: {options: {transform: ...}}."
            raise part.wrong("the transform of a provider changes every answer, so it cannot be skipped", remedy)
        notices.unsupported("transform of a provider", part.place())


def _check_repeats(head: SuiteForm, document: Document) -> None:
    if head.repeats > 1 and not head.decoding.temperature:
        remedy = "Write decoding: {temperature: 0.7}, or remove repeats."
        raise document.wrong(f"{head.repeats} repeats at temperature 0 give the same answer", remedy, ("repeats",))


def _defaults(document: Document, files: Files, notices: Notices) -> tuple[DefaultsForm, Document]:
    """Return defaultTest, which may be in another file, and its document."""
    node = document.root.child("defaultTest")
    if node is None or node.value is None:
        return DefaultsForm(), Document(document.file, Node(None, None, {}), document.error)
    part = document.part(("defaultTest",))
    try:
        if isinstance(node.value, str):
            name = local_name(node.value)
            part = parse_yaml(files.text(name, document, ("defaultTest",)), name, SuiteError)
        part = known_keys(with_files(part, files), DefaultsForm, notices)
    except UnsupportedError as missing:
        remedy = "Write the defaults into this file, or into a YAML file."
        raise document.wrong(f"defaultTest cannot have {missing}", remedy, ("defaultTest",)) from None
    return fit(DefaultsForm, part), part


def parse_examples(data: bytes, file: str) -> tuple[Example, ...]:
    """Read the training rows in the content of a file, in any form that `harness.suites.rows` knows."""
    return _checked_rows(data, file).examples


def _checked_rows(data: bytes, file: str) -> ReadRows:
    found = read_rows(data, file, WITHOUT_OPTIONS)
    raise_mistakes(found.records, found.mistakes)
    if not found.examples:
        raise SuiteError(
            "holds no training rows", remedy='Write one row per line: {"messages": [...]}.', place=Place(file)
        )
    return found


def _examples(head: SuiteForm, document: Document, read: ReadBytes, notices: Notices) -> tuple[Example, ...]:
    try:
        if head.train is None:
            data, file = read(TRAINING_FILE), TRAINING_FILE
        else:
            data, file = read_referenced(head.train, read, document, ("train",)), head.train.removeprefix(FILE)
    except FileNotFoundError:
        return ()
    found = _checked_rows(data, file)
    notices.about_rows(found.notices)
    return found.examples


def _sources(documents: Iterable[Document], files: Files, notices: Notices, *, has_prompts: bool) -> list[WrittenCase]:
    """Validate every case. `has_prompts`: whether the suite has prompts for cases without their own prompt."""
    sources, problems = [], []
    for number, written in enumerate(documents, 1):
        check_cases(number, written)
        try:
            document = known_keys(with_files(written, files), CaseForm, notices)
            sources.append(WrittenCase(_fit_case(document, has_prompts), document))
        except UnsupportedError as missing:
            notices.unsupported(str(missing), written.place())
            notices.left_out += 1
        except HarnessError as problem:
            problems.append(problem)
    raise_all(problems)
    if not sources:
        notices.raise_unsupported()
        raise SuiteError("there are no cases", remedy=" ".join(notices.sentences()) or "Add cases under tests.")
    return sources


def _fit_case(document: Document, has_prompts: bool) -> CaseForm:
    value = document.value
    # If the suite has prompts, a CSV column `prompt` is a variable; otherwise it is the case's prompt.
    if isinstance(value, dict) and not has_prompts and document.root.column is None and "prompt" not in value:
        variables = value.get("vars")
        if isinstance(variables, dict) and "prompt" in variables:
            value = {**value, "prompt": variables["prompt"]}
    return fit(CaseForm, document, value)


def _refuse_others(given: Path) -> None:
    """Raise an error, with the command to use, for a file of rows, a grid, or a folder with a configuration."""
    place = Place(str(given))
    if given.is_file() and given.suffix.lower() in ROWS:
        remedy = f"Make a suite of it: harness new suites/NAME --from {shlex.quote(str(given))}"
        raise SuiteError("this is a file of rows, not a suite", remedy=remedy, place=place)
    above = given.parent.parent
    if given.is_file() and given.parent.name == "grids" and _configuration(above, (FILE_NAME, *CONFIGURATIONS)):
        remedy = f"Give the suite's folder: {shlex.quote(str(above))}"
        raise SuiteError("this is a grid, not a suite", remedy=remedy, place=place)
    if not (given / FILE_NAME).exists() and (found := _configuration(given, CONFIGURATIONS)):
        remedy = f"Give the file of the configuration: {shlex.quote(str(found))}"
        raise SuiteError(f"this folder holds no {FILE_NAME}", remedy=remedy, place=place)


def _configuration(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _no_such_suite(given: Path) -> SuiteError:
    missing = given.parent if given.suffix in (".yaml", ".yml") else given
    searched = (missing.parent, missing.parent / "suites")
    found = sorted({str(file.parent) for folder in searched for file in folder.glob(f"*/{FILE_NAME}")})
    remedy = f"Suites here: {', '.join(found)}." if found else f"A suite is a folder that holds a {FILE_NAME}."
    advice = nearest(str(missing), found) if found else ""
    suggestion = f"{advice} " if advice.startswith("Did") else ""
    message = f"this folder holds no {FILE_NAME}" if given.is_dir() else "there is no such suite"
    return SuiteError(message, remedy=suggestion + remedy, place=Place(str(given)))
