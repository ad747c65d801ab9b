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
    found = read_tokenizer(folder) if folder else "the model has no tokenizer on this machine yet"
    if isinstance(found, str):
        return Lengths(tuple(_estimate(example.messages) for example in examples), False, found)
    try:
        counts = found.conversations.lengths([example.messages for example in examples])
        return Lengths(tuple(counts), True)
    except HarnessError as error:  # the check of the tokens reports it
        reason = f"the chat template refuses a row ({error.message})"
        return Lengths(tuple(_estimate(example.messages) for example in examples), False, reason)


def _estimate(messages: Sequence[Message]) -> int:
    return round(sum(len(message.content) / CHARACTERS + _TEMPLATE for message in messages))
