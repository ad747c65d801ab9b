"""Count the tokens of training rows with the model's tokenizer, or estimate them without a tokenizer.

This module uses the `tokenizers` package and the model's chat template, because importing transformers takes seconds.
The counts equal those of transformers' `apply_chat_template`: special tokens are counted only if the template has them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.conversations import as_chat
from harness.core.model import TEMPLATE_DATE
from harness.core.suite import Example, Message

CHARACTERS = 3.5
"""Characters per token for estimates. English text has 4.0 to 4.4 with common vocabularies, so 3.5 is cautious."""
_TEMPLATE = 8
"""Number of tokens that a chat template adds to a message, for estimates."""


@dataclass(frozen=True)
class Lengths:
    """The number of tokens of each training row, without truncation."""

    tokens: tuple[int, ...]
    counted: bool
    """Whether the tokens were counted with the model's tokenizer. Otherwise they are estimates."""
    reason: str = ""
    """The reason for estimates; empty if the tokens were counted."""

    @property
    def words(self) -> str:
        if self.counted:
            return "lengths counted with the model's tokenizer"
        return f"lengths estimated at {CHARACTERS:g} characters a token, because {self.reason}"


def lengths(examples: Sequence[Example], folder: Path | None) -> Lengths:
    """Return the number of tokens of every row. `folder` holds the tokenizer; None means that there is none."""
    found = _counter(folder) if folder else "no tokenizer is available"
    if isinstance(found, str):
        return Lengths(tuple(_estimate(example.messages) for example in examples), False, found)
    try:
        return Lengths(tuple(found(example.messages) for example in examples), True)
    except Exception as error:  # noqa: BLE001 - a template may raise any error; training will report it
        reason = (
            f"the chat template refuses a row ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        )
        return Lengths(tuple(_estimate(example.messages) for example in examples), False, reason)


def _estimate(messages: Sequence[Message]) -> int:
    return round(sum(len(message.content) / CHARACTERS + _TEMPLATE for message in messages))


Count = Callable[[Sequence[Message]], int]


def _counter(folder: Path) -> Count | str:
    """Return a function that counts the tokens of a conversation, or the reason why they cannot be counted."""
    from tokenizers import Tokenizer

    if not (folder / "tokenizer.json").is_file():
        return "the model's folder holds no tokenizer.json"
    template = chat_template(folder)
    if template is None:
        return "the model has no chat template"
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        render = _renderer(template, _special_tokens(folder))
    except Exception as error:  # noqa: BLE001 - `tokenizers` and Jinja raise many kinds; training will report it
        return f"the model's tokenizer cannot be read ({error})"
    return lambda messages: len(tokenizer.encode(render(messages), add_special_tokens=False).ids)


def chat_template(folder: Path) -> str | None:
    """Return the chat template in chat_template.jinja or tokenizer_config.json of a folder, or None."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    given = _settings(folder).get("chat_template")
    if isinstance(given, list):  # several templates with names
        named = {entry.get("name"): entry.get("template") for entry in given if isinstance(entry, Mapping)}
        given = named.get("default")
    return given if isinstance(given, str) and given else None


def _settings(folder: Path) -> dict[str, Any]:
    try:
        given = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return given if isinstance(given, dict) else {}


def _special_tokens(folder: Path) -> dict[str, str]:
    """Return the special tokens that templates use. In tokenizer_config.json, a token is a text or an object."""
    given = _settings(folder)
    texts = {name: given.get(name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    plain = {name: text.get("content") if isinstance(text, Mapping) else text for name, text in texts.items()}
    return {name: text for name, text in plain.items() if isinstance(text, str)}


def _renderer(template: str, special: Mapping[str, str]) -> Callable[[Sequence[Message]], str]:
    """Return a function that renders a chat template as transformers does: in a sandbox, with the same functions."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda _: TEMPLATE_DATE
    compiled = environment.from_string(template)

    def render(messages: Sequence[Message]) -> str:
        return compiled.render(messages=as_chat(messages), add_generation_prompt=False, **special)

    return render
