"""Translates a chat template into a template of Go's package text/template, which Ollama uses.

A chat template is a program, so it is not translated line by line. It renders conversations of sentinel words, which
shows the text that it writes between each pair of neighbouring messages. If this text depends only on the roles of the
two, the Go template has one condition for each pair of roles. `GoTemplate.render` returns what the Go template renders;
`tests/export/test_go_template.py` compares the two in Go. What a template does beside this, such as removing spaces
around a message, is found when the suite's prompts are compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from harness.core.errors import ExportError, SuiteError
from harness.core.suite import Message

Ask = Callable[[Sequence[Message]], str]
"""A function that renders a conversation, with the beginning of the answer. It raises a SuiteError if it cannot."""

_START = ""
"""In place of a role: the beginning or the end of a conversation."""
_SYSTEM = "system"
_SHAPES = ("u", "uau", "uauau")
"""Conversations without a system message, by the first letters of their roles."""
_ROLES = {"s": _SYSTEM, "u": "user", "a": "assistant"}
_SHOWN = 40
"""Characters that messages show around a difference."""
REMEDY = "Use llama.cpp, which runs the chat template in the GGUF file: --to gguf."


@dataclass(frozen=True)
class GoTemplate:
    """The text before each message, by the roles of the message before and of the message, and the text at the end."""

    between: Mapping[tuple[str, str], str]
    """Text by (role before, role). The role before the first message is empty, and the role at the end is, too."""

    @property
    def has_system(self) -> bool:
        """Whether the template writes system messages. If not, they are left out."""
        return (_START, _SYSTEM) in self.between

    def without(self, text: str) -> GoTemplate:
        """Return the template without a text with which all its conversations begin.

        Raises:
            ExportError: a conversation does not begin with the text.
        """
        starts = [pair for pair in self.between if pair[0] == _START]
        for pair in starts:
            if not self.between[pair].startswith(text):
                shown = self.between[pair][:_SHOWN]
                what = f"llama.cpp puts {text!r} before each conversation, and the run began it with {shown!r}"
                raise ExportError(what, remedy=REMEDY)
        return replace(self, between={**self.between, **{pair: self.between[pair][len(text) :] for pair in starts}})

    def render(self, messages: Sequence[Message]) -> str:
        """Return what Ollama renders: a message whose pair of roles is unknown is left out."""
        found, last = "", _START
        for message in collated(messages):
            if (last, message.role) in self.between:
                found += self.between[last, message.role] + message.content
                last = message.role
        return found + self.between.get((last, _START), "")

    def source(self) -> str:
        """Return the template in Go's language. Characters outside ASCII are escaped."""
        lines, word = ['{{- $last := "" }}', "{{- range .Messages }}"], "if"
        for (last, role), text in self.between.items():
            if role:
                lines.append(f"{{{{- {word} and (eq $last {_quoted(last)}) (eq .Role {_quoted(role)}) }}}}")
                lines.append(f"{{{{- {_quoted(text)} }}}}{{{{ .Content }}}}{{{{- $last = {_quoted(role)} }}}}")
                word = "else if"
        lines += ["{{- end }}", "{{- end }}"]
        for (last, role), text in self.between.items():
            if not role:
                lines.append(f"{{{{- if eq $last {_quoted(last)} }}}}{{{{ {_quoted(text)} }}}}{{{{ end }}}}")
        return "\n".join(lines)


def collated(messages: Sequence[Message]) -> list[Message]:
    """Join neighbouring messages of one role with an empty line, as Ollama does before it renders a template."""
    found: list[Message] = []
    for message in messages:
        if found and found[-1].role == message.role:
            found[-1] = Message(message.role, f"{found[-1].content}\n\n{message.content}")
        else:
            found.append(message)
    return found


def translate(ask: Ask) -> GoTemplate:
    """Find the template with which Ollama renders what `ask` renders.

    If the chat template refuses or moves system messages, they are left out of the result.

    Raises:
        ExportError: the text between two messages does not depend on their roles alone.
    """
    plain, reason = _between(ask, _SHAPES)
    whole, _ = _between(ask, (*_SHAPES, *(f"s{shape}" for shape in _SHAPES)))
    system, _ = _between(ask, tuple(f"s{shape}" for shape in _SHAPES))
    found = whole or plain or system  # some templates require a system message
    if found is None:
        raise ExportError(f"the chat template cannot be written for Ollama: {reason}", remedy=REMEDY)
    return GoTemplate(found)


def _between(ask: Ask, shapes: Sequence[str]) -> tuple[dict[tuple[str, str], str] | None, str]:
    """Return the text between messages by their roles, or None and the reason why they do not determine it."""
    found: dict[tuple[str, str], str] = {}
    for shape in shapes:
        messages = [Message(_ROLES[letter], f"Sentinel{number}word") for number, letter in enumerate(shape)]
        try:
            left = whole = ask(messages)
        except SuiteError as error:
            return None, str(error)
        texts = []
        for message in messages:
            text, _, left = left.partition(message.content)
            texts.append(text)
        texts.append(left)
        if sum(map(len, texts)) + sum(len(message.content) for message in messages) != len(whole):
            return None, "it writes messages in another order, or more than once"
        roles = [_START, *(message.role for message in messages), _START]
        for pair, text in zip(pairwise(roles), texts, strict=True):
            if found.setdefault(pair, text) != text:
                where = f"between {pair[0] or 'the beginning'} and {pair[1] or 'the answer'}"
                return None, f"{where} it writes {found[pair]!r} in one conversation and {text!r} in another"
    return found, ""


def first_difference(expected: str, found: str) -> str:
    """Describe where two different texts begin to differ."""
    pairs = zip(expected, found, strict=False)
    at = next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(expected), len(found)))
    start = max(0, at - _SHOWN // 2)
    before, after = expected[start : at + _SHOWN], found[start : at + _SHOWN]
    return f"from character {at + 1} on, the run was asked {before!r}, and Ollama would ask {after!r}"


def _quoted(text: str) -> str:
    """Write a text as a string constant of Go, in ASCII: Ollama drops some other characters from a Modelfile."""
    escaped = json.dumps(text).replace("\x7f", "\\u007f")
    # JSON writes characters above U+FFFF as two halves, which Go does not accept.
    halves = [character for character in text if ord(character) > 0xFFFF]
    for character in halves:
        escaped = escaped.replace(json.dumps(character)[1:-1], f"\\U{ord(character):08x}")
    return escaped
