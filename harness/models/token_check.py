"""Checks a suite against a model's tokenizer before anything trains: every row, every prompt, every token id."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.core.conversations import messages_of
from harness.core.errors import ModelError
from harness.core.suite import Case, Suite
from harness.core.turn_tokens import CutRows, TurnTokens, View
from harness.models.conversation_tokens import Conversations, Row
from harness.models.gguf_bases import Conversions
from harness.models.hub import Hub
from harness.models.resolving import find_description, resolve
from harness.models.token_views import view_case, view_row
from harness.models.tokenizer_files import read_tokenizer

Text = Callable[[int], str]
"""Returns the text of a token."""
_NOT_CONVERTED = "the model's file is converted by its first run, or by `harness tokens`"
_RESIZE = (
    "Give the model as many embeddings as its tokenizer has tokens (model.resize_token_embeddings(len(tokenizer)), "
    "then save_pretrained), or use the tokenizer that the model was published with."
)
_PAD = (
    "In a copy of the model's folder, write another token as pad_token into tokenizer_config.json (and into "
    "special_tokens_map.json, if there is one), for example the eos_token, since padding is never learned or attended "
    "to. Or give the model an embedding for it "
    "(model.resize_token_embeddings(len(tokenizer)), then save_pretrained)."
)


def check_tokens(
    suite: Suite, max_lengths: Iterable[int], tokenizer: Path, config: Mapping[str, Any] | None = None
) -> TurnTokens | str:
    """Check rows and prompts as the model will get them, and return how turns end and which rows are cut.

    `tokenizer` is the folder with the model's tokenizer; `config` is the content of config.json, if it is not that of
    this folder. Returns the reason if the tokenizer cannot be read without transformers; the worker then checks the
    same before it trains.

    Raises:
        ModelError: the template or the tokenizer does not fit the model, or the template reached a limit.
        SuiteError: a row or a prompt cannot be written as the template and the training need it.
    """
    found = read_tokenizer(tokenizer, config)
    if isinstance(found, str):
        return found
    rows = found.conversations.rows(suite.examples)
    prompts = asked(found.conversations, suite, suite.cases)
    used = {token for ids in (*(row.input_ids for row in rows), *prompts) for token in ids} | found.conversations.ends
    check_embeddings(found.embeddings, used, found.pad, found.conversations.vocabulary.text)
    sizes = sorted(set(max_lengths))
    return replace(
        found.conversations.turns(),
        cuts=tuple(cut_rows(rows, size) for size in sizes),
        views=(
            *(view_row(found, each, row, max(sizes)) for each, row in zip(suite.examples[:1], rows[:1], strict=True)),
            *(view_case(found, case, ids) for case, ids in zip(suite.cases[:1], prompts[:1], strict=True)),
        ),
    )


def check_named(suite: Suite, max_lengths: Iterable[int], model: str, *, hub: Hub | None = None) -> TurnTokens | str:
    """Check a suite as `check_tokens` does, with the model of this name. Weights are not downloaded.

    Returns the reason if the model's description or its tokenizer cannot be read.
    """
    try:
        found = find_description(model, hub=hub)
    except ModelError as error:
        return error.message
    if found.tokenizer is None:
        return _NOT_CONVERTED
    return check_tokens(suite, max_lengths, found.tokenizer, found.config)


def views_named(
    suite: Suite, max_lengths: Iterable[int], model: str, most: int, *, conversions: Conversions | None = None
) -> tuple[TurnTokens, list[View], Text]:
    """Check a suite with the model of this name, and show its first `most` rows and cases.

    The last of the results returns the text of a token. A model in a GGUF file is converted by `conversions`, which
    replaces those in the default cache; other weights are not read.

    Raises:
        ModelError: the model or its tokenizer cannot be read here, or does not fit.
        SuiteError: a row or a prompt cannot be written as the template and the training need it.
    """
    described, lengths = find_description(model, conversions=conversions), sorted(set(max_lengths))
    if described.tokenizer is None:
        resolve(model, conversions=conversions)
        described = find_description(model, conversions=conversions)
    folder = described.tokenizer
    turns = check_tokens(suite, lengths, folder, described.config) if folder else _NOT_CONVERTED
    found = read_tokenizer(folder, described.config) if folder else _NOT_CONVERTED
    if isinstance(turns, str) or isinstance(found, str):
        why = turns if isinstance(turns, str) else found
        remedy = "Save it with tokenizer.json: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        remedy = remedy if folder else "Run the same command again."
        raise ModelError(f"rows and prompts cannot be shown: {why}", remedy=remedy)
    rows = found.conversations.rows(suite.examples[:most])
    prompts = asked(found.conversations, suite, suite.cases[:most])
    views = [view_row(found, each, row, max(lengths)) for each, row in zip(suite.examples, rows, strict=False)]
    views += [view_case(found, case, ids) for case, ids in zip(suite.cases, prompts, strict=False)]
    return turns, views, found.conversations.vocabulary.text


def asked(conversations: Conversations, suite: Suite, cases: Sequence[Case]) -> list[list[int]]:
    """Return the tokens with which the model is asked each case."""
    return conversations.asked([(called(case.prompt), messages_of(suite, case)) for case in cases])


def called(prompt: str) -> str:
    """Return the name of a case in messages."""
    return f"the case that asks {prompt[:60]!r}"


def cut_rows(rows: Sequence[Row], max_length: int) -> CutRows:
    """Count the rows that `max_length` cuts."""
    long = [row for row in rows if len(row.input_ids) > max_length]
    return CutRows(max_length, len(rows), len(long), sum(row.end > max_length for row in long))


def check_embeddings(size: int | None, used: Collection[int], pad: int | None, text: Callable[[int], object]) -> None:
    """Check that the model has an embedding for every token id that it can get.

    `size` is the number of embeddings; None, if it is not known. `pad` is the id of the padding token. `text` returns
    the text of a token.

    Raises:
        ModelError: an id is too large.
    """
    largest, what = max(used, default=0), "and the model has embeddings for ids below"
    if size is not None and largest >= size:
        message = f"the tokenizer gives the token {text(largest)!r} the id {largest}, {what} {size} only"
        raise ModelError(message, remedy=_RESIZE)
    if size is not None and pad is not None and pad >= size:
        raise ModelError(f"the padding token {text(pad)!r} has the id {pad}, {what} {size} only", remedy=_PAD)
