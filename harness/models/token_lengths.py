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


@dataclass(frozen=True)
class Lengths:
    """The number of tokens of each training row, without truncation."""

    tokens: tuple[int, ...]
    labelled: tuple[int, ...]
    """The number of tokens with labels in each row: those of the assistant's answers."""
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
    """Return the number of tokens of every row, and of those with labels.

    `folder` holds the tokenizer; None means that there is none.
    """
    found = read_tokenizer(folder) if folder else "the model has no tokenizer on this machine yet"
    if isinstance(found, str):
        return _estimates(examples, found)
    try:
        conversations = [example.messages for example in examples]
        counts = found.conversations.lengths(conversations)
        return Lengths(tuple(counts), tuple(found.conversations.labelled(conversations)), True)
    except HarnessError as error:  # the check of the tokens reports it
        return _estimates(examples, f"the chat template refuses a row ({error.message})")


def _estimates(examples: Sequence[Example], reason: str) -> Lengths:
    answers = [[each for each in example.messages if each.role == "assistant"] for example in examples]
    whole = tuple(_estimate(example.messages) for example in examples)
    return Lengths(whole, tuple(_estimate(messages) for messages in answers), False, reason)


def _estimate(messages: Sequence[Message]) -> int:
    return round(sum(len(message.content) / CHARACTERS + _TEMPLATE for message in messages))
