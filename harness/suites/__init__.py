"""Read a suite: test prompts, their assertions, and training rows.

`load_suite` reads a suite's folder. `parse_suite` parses the text of a suite.yaml, with a function that reads the other
files. Mistakes are raised as `SuiteError`, several in one error if possible, with files, lines, columns and remedies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from harness.core.errors import HarnessError, Place, SuiteError
from harness.core.suite import Decoding, Example, Suite
from harness.core.yaml import Document, fit, nearest, parse_yaml, raise_all, read_bytes, read_text
from harness.scoring.values import FILE
from harness.suites.assertions import IGNORED
from harness.suites.case_files import Read, ReadBytes, bytes_reader, case_rows, read_referenced, reader
from harness.suites.cases import SuiteContext, WrittenCase, assemble
from harness.suites.forms import UNSUPPORTED, CaseForm, SuiteForm, SuiteHead
from harness.suites.notices import Notices, marked
from harness.suites.rows import WITHOUT_OPTIONS, ReadRows, raise_mistakes, read_rows

__all__ = ["load_examples", "load_suite", "parse_examples", "parse_suite"]
FILE_NAME = "suite.yaml"
TRAINING_FILE = "train.jsonl"
PROMPT_FILES = (".txt", ".md", "")
BETWEEN_PROMPTS = re.compile(r"^---[ \t]*$", re.MULTILINE)


def load_suite(path: Path | str, *, skip_unsupported: bool = False) -> Suite:
    """Read the suite in a folder (or the folder's suite.yaml).

    If the suite uses features of promptfoo that the harness does not support, one error names all their places. With
    `skip_unsupported`, these features are skipped and counted in the suite's notices.

    Raises:
        SuiteError: the folder holds no suite, or the suite has mistakes.
    """
    given = Path(path)
    file = given / FILE_NAME if given.is_dir() or given.suffix not in (".yaml", ".yml") else given
    folder = file.parent
    try:
        text = read_text(file, file.name, SuiteError)
    except FileNotFoundError:
        raise _no_such_suite(given) from None
    name = folder.resolve().name
    return parse_suite(
        text,
        file.name,
        reader(folder),
        name=name,
        folder=str(folder),
        skip_unsupported=skip_unsupported,
        read_bytes=bytes_reader(folder),
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
    read: Read,
    *,
    name: str = "",
    folder: str = "",
    skip_unsupported: bool = False,
    read_bytes: ReadBytes | None = None,
) -> Suite:
    """Parse the text of a suite.yaml; `read` returns the text of the file with a given name.

    `read_bytes` returns the content of the file with the training rows (default: the text that `read` returns).
    """
    document = parse_yaml(text, file, SuiteError)
    head, notices = fit(SuiteHead, document), Notices(skip=skip_unsupported)
    _note(head, document, notices)
    _check_repeats(head, document)
    prompts = list(_prompts(head, document, read, notices))
    sources = _sources(_case_documents(document, read), has_prompts=bool(head.prompts))
    cases = assemble(sources, SuiteContext(head.default_test, document, prompts, read, notices))
    examples = _examples(head, document, read_bytes or (lambda name: read(name).encode()), notices)
    if examples and head.system_prompt is not None and not any(_has(head.system_prompt, row) for row in examples):
        notices.untrained_system_prompt(document.place(("system_prompt",), key=True))
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
    )


def _has(system_prompt: str, row: Example) -> bool:
    return any(message.role == "system" and message.content == system_prompt for message in row.messages)


def _note(head: SuiteForm, document: Document, notices: Notices) -> None:
    for name in marked(head, IGNORED):
        notices.ignore(name, document.place((name,), key=True))
    for name in marked(head, UNSUPPORTED):
        notices.unsupported(name, document.place((name,), key=True))


def _check_repeats(head: SuiteForm, document: Document) -> None:
    if head.repeats > 1 and not head.decoding.temperature:
        remedy = "Write decoding: {temperature: 0.7}, or remove repeats."
        raise document.wrong(f"{head.repeats} repeats at temperature 0 give the same answer", remedy, ("repeats",))


def _prompts(head: SuiteForm, document: Document, read: Read, notices: Notices) -> Iterator[str]:
    """Yield the suite's prompts. A text file may hold several prompts, separated by lines of `---`."""
    for i, given in enumerate(head.prompts):
        prompt, location = given if isinstance(given, str) else given.text, ("prompts", i)
        if not prompt.startswith(FILE):
            yield prompt
        elif Path(prompt).suffix not in PROMPT_FILES:
            notices.unsupported("a prompt from code or as a conversation", document.place(location))
        else:
            parts = BETWEEN_PROMPTS.split(read_referenced(prompt, read, document, location))
            yield from (part.strip() for part in parts if part.strip())


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


def _case_documents(document: Document, read: Read) -> Iterator[Document]:
    """Yield every case as a document, from suite.yaml and from the case files that it names."""
    tests = document.root.child("tests")
    listed = tests.value if tests is not None else None
    if not isinstance(listed, list | str) or not listed:
        raise document.wrong("tests: expected a list of cases, or file://NAME", "Add cases under tests.", ("tests",))
    items = [("tests",)] if isinstance(listed, str) else [("tests", i) for i in range(len(listed))]
    for location in items:
        item = document.part(location)
        if not isinstance(item.root.value, str):
            yield item
            continue
        if not item.root.value.startswith(FILE):
            raise item.wrong("expected a case, or file://NAME", "Write a mapping with the keys prompt and assert.")
        text = read_referenced(item.root.value, read, document, location)
        yield from case_rows(item.root.value.removeprefix(FILE), text)


def _sources(documents: Iterator[Document], *, has_prompts: bool) -> list[WrittenCase]:
    """Validate every case. `has_prompts`: whether the suite has prompts for cases without their own prompt."""
    sources, problems = [], []
    for document in documents:
        try:
            sources.append(WrittenCase(_fit_case(document, has_prompts), document))
        except HarnessError as problem:
            problems.append(problem)
    raise_all(problems)
    if not sources:
        raise SuiteError("there are no cases", remedy="Add cases under tests.")
    return sources


def _fit_case(document: Document, has_prompts: bool) -> CaseForm:
    value = document.value
    # If the suite has prompts, a CSV column `prompt` is a variable; otherwise it is the case's prompt.
    if isinstance(value, dict) and not has_prompts and document.root.column is None and "prompt" not in value:
        variables = value.get("vars")
        if isinstance(variables, dict) and "prompt" in variables:
            value = {**value, "prompt": variables["prompt"]}
    return fit(CaseForm, document, value)


def _no_such_suite(given: Path) -> SuiteError:
    missing = given.parent if given.suffix in (".yaml", ".yml") else given
    searched = (missing.parent, missing.parent / "suites")
    found = sorted({str(file.parent) for folder in searched for file in folder.glob(f"*/{FILE_NAME}")})
    remedy = f"Suites here: {', '.join(found)}." if found else f"A suite is a folder that holds a {FILE_NAME}."
    advice = nearest(str(missing), found) if found else ""
    suggestion = f"{advice} " if advice.startswith("Did") else ""
    message = f"this folder holds no {FILE_NAME}" if given.is_dir() else "there is no such suite"
    return SuiteError(message, remedy=suggestion + remedy, place=Place(str(given)))
