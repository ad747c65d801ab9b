"""Read `prompts`: texts, files, patterns, mappings with labels, and conversations in JSON or YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, get_args

from harness.core import javascript
from harness.core.errors import HarnessError, SuiteError
from harness.core.suite import Message
from harness.core.yaml import Document, parse_yaml, shown
from harness.scoring.values import FILE
from harness.suites.forms import MessageForm, in_turn
from harness.suites.notices import Notices, UnsupportedError
from harness.suites.promptfoo.files import CODE, Files, is_pattern
from harness.suites.promptfoo.references import check_replaced
from harness.suites.promptfoo.templates import Templates

Location = tuple[str | int, ...]
SEPARATOR = "---"
"""A line with only these characters separates the prompts of a text file."""
SUFFIXES = (
    ".cjs",
    ".cts",
    ".j2",
    ".js",
    ".json",
    ".jsonl",
    ".md",
    ".mjs",
    ".mts",
    ".py",
    ".ts",
    ".txt",
    ".yml",
    ".yaml",
)
PROGRAMS = CODE | {".sh", ".bash", ".exe", ".bat", ".cmd", ".ps1", ".pl"}
SERVICES = ("portkey://", "langfuse://", "helicone://")
ROLES = frozenset(get_args(MessageForm.model_fields["role"].annotation))
YAML_CHAT = "- role:"
JSON_CHAT = re.compile(r'\s*\[\s*\{\s*"(role|content)"')


@dataclass(frozen=True)
class Prompt:
    """A prompt of a suite."""

    text: str
    """Its template."""
    label: str
    """The name by which cases choose it."""
    id: str = ""

    def is_named(self, name: str) -> bool:
        """Whether a name in the list `prompts` of a case means this prompt."""
        for own in filter(None, (self.label, self.id)):
            if own == name or own.startswith(f"{name}:") or (name.endswith("*") and own.startswith(name[:-1])):
                return True
        return False


def read_prompts(document: Document, files: Files, notices: Notices) -> list[Prompt]:
    """Return the prompts of a suite. Those that are not supported are noted and left out.

    Raises:
        SuiteError: a prompt is no text and no mapping, or names a file that cannot be read.
    """
    found: list[Prompt] = []
    for text, label, own_id, location in _written(document):
        try:
            found += _read(text, label, own_id, files, document, location)
        except UnsupportedError as missing:
            notices.unsupported(str(missing), document.place(location))
    return found


def _written(document: Document) -> Iterator[tuple[str, str, str, Location]]:
    """Yield the text, label and id of every entry of `prompts`, and its place."""
    node = document.root.child("prompts")
    check_replaced(document.part(("prompts",)) if node is not None else document)
    given = document.part(("prompts",)).value if node is not None else None
    if isinstance(given, str):
        yield given, "", "", ("prompts",)
    elif isinstance(given, dict):
        for name, label in given.items():
            yield name, label if isinstance(label, str) else "", "", ("prompts", name)
    elif isinstance(given, list):
        for i, entry in enumerate(given):
            yield from _entry(entry, document, ("prompts", i))
    elif given is not None:
        raise document.wrong(f"prompts: expected a list, found {shown(given)}", "List texts or files.", ("prompts",))


def _entry(entry: Any, document: Document, location: Location) -> Iterator[tuple[str, str, str, Location]]:
    if isinstance(entry, bool | int | float | str):
        yield entry if isinstance(entry, str) else javascript.text(entry), "", "", location
    elif isinstance(entry, dict):
        check_replaced(document.part(location))
        texts = {name: entry.get(name) for name in ("raw", "id", "label")}
        text = next((texts[name] for name in ("raw", "id") if isinstance(texts[name], str)), None)
        if not text:
            raise document.wrong("this prompt has no text", "Add raw: TEXT, or id: file://NAME.", location)
        yield text, str(texts["label"] or ""), str(texts["id"] or "") if texts["raw"] else "", location
    else:
        raise document.wrong(f"expected a prompt, found {shown(entry)}", "Write a text or file://NAME.", location)


# --- files -------------------------------------------------------------------------------------------------------


def names_file(text: str) -> bool:
    """Whether promptfoo takes the text of a prompt for a path."""
    if "\n" in text or any(service in text for service in SERVICES):
        return False
    if text.startswith(FILE) or any(token.endswith(SUFFIXES) for token in text.split(":")[-2:]):
        return True
    return text[-3:-2] == "." or text[-4:-3] == "." or any(mark in text for mark in "*/\\")


def _read(text: str, label: str, own_id: str, files: Files, document: Document, location: Location) -> Iterator[Prompt]:
    if text.startswith("exec:") or text.startswith(SERVICES):
        raise UnsupportedError("prompts from code or a service")
    if not names_file(text):
        yield Prompt(text, label or text, own_id)
        return
    name = text.removeprefix(FILE).removeprefix("./")
    is_sentence = re.search(r"\s", name) is not None
    if is_pattern(name) and not is_sentence and (found := files.fitting(name, document, location)):
        for one in found:
            yield from _in_file(one, "", files, document, location)
    elif _is_rather_text(text):
        yield Prompt(text, label or text, own_id)
    else:
        yield from _in_file(name, label, files, document, location)


def _is_rather_text(text: str) -> bool:
    """Whether a text that promptfoo takes for a path is none: a pattern without files, or a sentence.

    promptfoo asks a pattern that fits no file as a text. It refuses the others, so none of its suites has them.
    """
    if text.startswith(FILE) or text.endswith(SUFFIXES):
        return False
    return is_pattern(text) or re.search(r"\s|\{\{", text) is not None


def _in_file(name: str, label: str, files: Files, document: Document, location: Location) -> Iterator[Prompt]:
    suffix = PurePath(name).suffix
    if suffix in PROGRAMS or PurePath(name.rpartition(":")[0]).suffix in CODE:
        raise UnsupportedError("prompts from code or a service")
    if suffix == ".csv":
        raise UnsupportedError("prompts in CSV files")
    text = files.text(name, document, location)
    if suffix in (".md", ".j2"):
        yield Prompt(text, label or f"{name}: {text[:50]}...")
    elif suffix in (".json", ".yaml", ".yml"):
        made = _as_json(name, text)
        yield Prompt(made, label or f"{name}: {made}")
    elif suffix == ".jsonl":
        yield from (Prompt(line, f"{label or name}: {line}") for line in re.split(r"\r?\n", text) if line)
    else:
        parts = list(_parts(text))
        if not parts:
            raise document.wrong(f"the file {shown(name)} holds no prompt", "Write a prompt into it.", location)
        yield from (Prompt(part, f"{label}: {name}: {part}" if label else f"{name}: {part}") for part in parts)


def _parts(text: str) -> Iterator[str]:
    """Yield the prompts of a text file."""
    lines: list[str] = []
    for line in [*re.split(r"\r?\n", text), SEPARATOR]:
        if javascript.trim(line) != SEPARATOR:
            lines.append(line)
        elif joined := javascript.trim("\n".join(lines)):
            yield joined
            lines = []
        else:
            lines = []


def _as_json(name: str, text: str) -> str:
    """Return the JSON text of a prompt in a JSON or YAML file; a file that holds neither is a text."""
    if f"{FILE}" in text:
        raise UnsupportedError("prompts that name further files")
    if name.endswith(".json"):
        try:
            return javascript.to_json(javascript.parse_json(text))
        except ValueError:
            return text
    try:
        return javascript.to_json(parse_yaml(text, name, SuiteError).value)
    except HarnessError:
        raise UnsupportedError("prompts in YAML that is not plain") from None


# --- rendering ---------------------------------------------------------------------------------------------------


def messages(text: str, variables: Mapping[str, Any], templates: Templates) -> tuple[Message, ...]:
    """Return what a prompt asks: the text of a user, or a conversation.

    The templates in a conversation that is JSON are rendered one by one, so that no value can break its syntax.

    Raises:
        UnsupportedError: a template may be rendered differently by promptfoo, or the conversation has other parts than
            texts by a system, users and assistants in turn.
        ValueError: a variable is missing, or a limit was reached.
    """
    parsed = _json_or_none(text)
    if isinstance(parsed, list | dict):
        return _conversation(_rendered(parsed, variables, templates))
    if isinstance(parsed, str):
        # promptfoo asks a prompt in double quotes with its quotes, and escapes what is inserted.
        return (Message("user", javascript.to_json(templates.render(parsed, variables))),)
    rendered = user_message(text, variables, templates)[0].content
    if rendered.lstrip().startswith(YAML_CHAT):
        return _conversation(_yaml_or_unsupported(rendered))
    parsed = _json_or_none(rendered)
    if isinstance(parsed, list | dict):
        return _conversation(parsed)
    if JSON_CHAT.match(rendered):
        raise UnsupportedError("a conversation whose JSON has a mistake")
    return (Message("user", rendered),)


def looks_like_conversation(text: str) -> bool:
    """Whether a text begins like a conversation in JSON or YAML."""
    return JSON_CHAT.match(text) is not None or text.lstrip().startswith(YAML_CHAT)


def user_message(text: str, variables: Mapping[str, Any], templates: Templates) -> tuple[Message, ...]:
    """Return a prompt as the message of a user, whatever its text looks like."""
    values = {name: _rendered_variable(value, variables, templates) for name, value in variables.items()}
    return (Message("user", templates.render_lines(text, values)),)


def _json_or_none(text: str) -> list[Any] | dict[str, Any] | str | None:
    """Return the value of a text that is JSON; None for other texts, and for numbers and the like."""
    if text.lstrip()[:1] not in ("[", "{", '"'):
        return None
    try:
        found = javascript.parse_json(text)
    except ValueError:
        return None
    return found if isinstance(found, list | dict | str) else None


def _yaml_or_unsupported(text: str) -> Any:
    try:
        return parse_yaml(text, "", SuiteError).value
    except HarnessError:
        raise UnsupportedError("a conversation whose YAML has a mistake") from None


def _rendered(value: Any, variables: Mapping[str, Any], templates: Templates) -> Any:
    if isinstance(value, str):
        return templates.render(value, variables)
    if isinstance(value, list):
        return [_rendered(item, variables, templates) for item in value]
    if isinstance(value, dict):
        return {key: _rendered(item, variables, templates) for key, item in value.items()}
    return value


def _rendered_variable(value: Any, variables: Mapping[str, Any], templates: Templates) -> Any:
    return templates.render_lines(value, variables) if isinstance(value, str) else value


def _conversation(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise UnsupportedError("a prompt in JSON that is no conversation")
    found = tuple(map(_message, value))
    forms = [MessageForm.model_construct(role=message.role, content=message.content) for message in found]
    try:
        in_turn(forms, "user")
    except ValueError:
        raise UnsupportedError("a conversation that is not a user and an assistant in turn") from None
    return found


def _message(value: Any) -> Message:
    if not isinstance(value, dict) or value.get("role") not in ROLES or value.keys() - {"role", "content"}:
        raise UnsupportedError("a conversation with other roles or parts")
    content = value.get("content")
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        content = content[0].get("text") if content[0].keys() == {"type", "text"} else None
    if not isinstance(content, str) or not content.strip():
        raise UnsupportedError("a conversation with other parts than text")
    return Message(value["role"], content)
