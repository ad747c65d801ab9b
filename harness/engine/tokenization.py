"""Renders conversations to token ids and labels; only the assistant's tokens have labels.

TRL finds the assistant's tokens by `{% generation %}` marks in the chat template, which Llama-2's and Mistral's
templates lack, or by splitting a row into prompt and completion, which allows only one answer. This module finds each
assistant message by rendering the conversation twice: up to the message, and including it. That works for every
template in which the first rendering is a prefix of the second. In a row with one answer, the labels are equal to those
of TRL's prompt/completion rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.core.conversations import as_chat
from harness.core.errors import SuiteError
from harness.core.suite import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label of a token that has no loss (PyTorch's cross entropy skips it)."""


@dataclass(frozen=True)
class Row:
    """One training row: token ids, and for each the label to predict or `IGNORED`."""

    input_ids: list[int]
    labels: list[int]

    @property
    def supervised(self) -> int:
        """Number of tokens with a label."""
        return sum(label != IGNORED for label in self.labels)


def tokenize(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Row]:
    """Return one row per example, cut at `max_length` tokens.

    Raises:
        SuiteError: a row's prompt takes all of `max_length`, so no answer is left to learn from; or the chat template
            refuses the roles, or renders an answer differently when another turn follows.
    """
    return [_row(example, tokenizer, max_length) for example in examples]


def render(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, ask: bool) -> list[int]:
    """Return the token ids of a conversation; with `ask`, also those that open the assistant's answer."""
    ids = tokenizer.apply_chat_template(as_chat(messages), tokenize=True, add_generation_prompt=ask, return_dict=False)
    return list(ids)


def follow(messages: Sequence[Message], text: str, tokenizer: PreTrainedTokenizerBase) -> Row:
    """Return the row of a conversation with `text` as the assistant's next message; only that message has labels."""
    ids = render((*messages, Message("assistant", text)), tokenizer, ask=False)
    start = _common(render(messages, tokenizer, ask=True), ids)
    return Row(ids, [IGNORED] * start + ids[start:])


def _row(example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Row:
    from jinja2 import TemplateError

    try:
        ids = render(example.messages, tokenizer, ask=False)
        labels = [IGNORED] * len(ids)
        for index, message in enumerate(example.messages):
            if message.role == "assistant":
                start = _common(render(example.messages[:index], tokenizer, ask=True), ids)
                end = _common(render(example.messages[: index + 1], tokenizer, ask=False), ids)
                if end <= start:
                    what = "the model's chat template renders an answer differently when another turn follows"
                    remedy = "Make one row per answer, each with the conversation up to it."
                    raise SuiteError(f"training row {example.line}: {what}", remedy=remedy)
                labels[start:end] = ids[start:end]
    except TemplateError as error:
        turns = "Let user and assistant alternate, after at most one system message."
        what = f"training row {example.line} cannot be written with the model's chat template"
        raise SuiteError(f"{what}: {error}", remedy=turns) from None
    row = Row(ids[:max_length], labels[:max_length])
    if not row.supervised:
        remedy = "Raise max_length in the grid, or shorten the row."
        reason = f"training row {example.line}: its prompt alone takes all {max_length} tokens of max_length"
        raise SuiteError(reason, remedy=remedy)
    return row


def _common(a: list[int], b: list[int]) -> int:
    """Return the length of the longest common prefix of two lists."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
