"""Turns conversations into token ids and labels with a tokenizer of transformers.

`harness.models.conversation_tokens` holds the rules. This module gives them the tokenizer of a loaded model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from harness.core.errors import ModelError, SuiteError
from harness.core.suite import Example, Message
from harness.models.chat_templates import ChatTemplate
from harness.models.conversation_tokens import IGNORED, Conversations, Row, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["IGNORED", "Row", "conversations_of", "follow", "render", "tokenize"]

_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, Conversations] = WeakKeyDictionary()
"""The conversations of each tokenizer in use, because finding out how a template closes turns takes renderings."""


def conversations_of(tokenizer: PreTrainedTokenizerBase) -> Conversations:
    """Return the rendering of conversations for a tokenizer.

    Raises:
        ModelError: the tokenizer has no chat template.
    """
    template = _template_of(tokenizer)
    known = _KNOWN.get(tokenizer)
    if known is None or known.template != template:
        known = _KNOWN[tokenizer] = Conversations(template, _vocabulary(tokenizer))
    return known


def tokenize(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Row]:
    """Return one row per example, cut at `max_length` tokens.

    Raises:
        ModelError: the chat template does not close the assistant's turns, or reached a limit.
        SuiteError: a row's prompt takes all of `max_length`, so no answer is left to learn from; or the row cannot be
            written as the chat template and the training need it.
    """
    rows = conversations_of(tokenizer).rows(examples)
    return [_cut(row, max_length, example.name) for row, example in zip(rows, examples, strict=True)]


def render(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, ask: bool) -> list[int]:
    """Return the token ids of a conversation; with `ask`, also those that open the assistant's answer."""
    conversations = conversations_of(tokenizer)
    if not ask:
        return conversations.whole(messages)
    (ids,) = conversations.asked([("the conversation", messages)])
    return ids


def follow(messages: Sequence[Message], text: str, tokenizer: PreTrainedTokenizerBase) -> Row:
    """Return the row of a conversation with `text` as the assistant's next message; only that message has labels."""
    (row,) = conversations_of(tokenizer).follow(messages, [text])
    return row


def _cut(row: Row, max_length: int, name: str) -> Row:
    cut = Row(row.input_ids[:max_length], row.labels[:max_length])
    if not cut.supervised:
        remedy = "Raise max_length in the grid, or shorten the row."
        reason = f"{name}: its prompt alone takes all {max_length} tokens of max_length"
        raise SuiteError(reason, remedy=remedy)
    return cut


def _template_of(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    try:
        source = tokenizer.get_chat_template()
    except ValueError:
        remedy = "Use the chat version of the model, or add a chat template to its tokenizer."
        raise ModelError("the tokenizer has no chat template", remedy=remedy) from None
    return ChatTemplate(source, {name: str(token) for name, token in tokenizer.special_tokens_map.items()})


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    added = {
        number
        for number, token in tokenizer.added_tokens_decoder.items()
        if not token.content.isspace() and token.content != tokenizer.unk_token
    }

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return list(tokenizer(list(texts), add_special_tokens=False)["input_ids"]) if texts else []

    return Vocabulary(
        encode=encode,
        text=lambda number: str(tokenizer.convert_ids_to_tokens(number)),
        decode=lambda ids: str(tokenizer.decode(list(ids))),
        added=frozenset(added),
        ends=frozenset({tokenizer.eos_token_id} - {None}),
    )
