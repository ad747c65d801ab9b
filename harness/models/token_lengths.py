"""Count the tokens of training rows with the model's tokenizer, or estimate them without a tokenizer.

The counts equal those of transformers' `apply_chat_template`: special tokens are counted only if the template has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import HarnessError
from harness.core.suite import Example, Message
from harness.models.tokenizer_files import read_tokenizer

CHARACTERS = 3.5
"""Characters per token for estimates. English text has 4.0 to 4.4 with common vocabularies, so 3.5 is cautious."""
_TEMPLATE = 8
"""Number of tokens that a chat template adds to a message, for estimates."""
_END = 1
"""Number of these tokens that have labels in an answer, for estimates: the one that closes the turn."""


@dataclass(frozen=True)
class Lengths:
    """The number of tokens of each training row, without truncation."""

    tokens: tuple[int, ...]
    supervised: tuple[int, ...]
    """The number of tokens with labels of each row: those of the assistant."""
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
    """Return the numbers of tokens of every row. `folder` holds the tokenizer; None means that there is none."""
    found = read_tokenizer(folder) if folder else "the model has no tokenizer on this machine yet"
    if isinstance(found, str):
        return _estimated(examples, found)
    try:
        rows = found.conversations.unchecked_rows([example.messages for example in examples])
    except HarnessError as error:  # the check of the tokens reports it
        return _estimated(examples, f"the chat template refuses a row ({error.message})")
    return Lengths(tuple(len(row.input_ids) for row in rows), tuple(row.supervised for row in rows), True)


def _estimated(examples: Sequence[Example], reason: str) -> Lengths:
    tokens = (_estimate(example.messages, _TEMPLATE) for example in examples)
    answers = ([message for message in example.messages if message.role == "assistant"] for example in examples)
    return Lengths(tuple(tokens), tuple(_estimate(own, _END) for own in answers), False, reason)


def _estimate(messages: Sequence[Message], more: int) -> int:
    return round(sum(len(message.content) / CHARACTERS + more for message in messages))
