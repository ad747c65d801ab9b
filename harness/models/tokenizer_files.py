"""Reads a model's tokenizer, chat template and end tokens from its folder.

It does not use transformers, because importing transformers takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.models.chat_templates import ChatTemplate
from harness.models.conversation_tokens import Conversations, Vocabulary
from harness.models.foreign_files import FETCH_AGAIN, check_folder, damaged, read_optional, read_text, refusing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MOST_TOKENS = 1_000_000
"""Largest vocabulary, about four times the largest published one."""
_MOST_GROWTH = 1000
_MOST_IDS = 2**31
"""Larger than every id of a token."""


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer that was read from a folder."""

    conversations: Conversations
    pad: int | None
    """Id of the padding token, if the tokenizer names one."""
    embeddings: int | None
    """Number of tokens for which the model has embeddings, by its configuration; None if it does not say."""


def read_tokenizer(folder: Path, config: Mapping[str, Any] | None = None) -> TokenizerFiles | str:
    """Read the tokenizer in a folder, or return the reason why it cannot be read here.

    `config` is the content of the model's config.json, if it is not that of the folder.

    Raises:
        ModelError: a file is damaged, too large or no regular file.
    """
    from tokenizers import Tokenizer

    check_folder(folder)
    if not (folder / "tokenizer.json").is_file():
        return "the model's folder holds no tokenizer.json"
    template = chat_template(folder)
    if template is None:
        return "the model has no chat template"
    special = special_tokens(folder)
    with refusing(f"{folder / 'tokenizer.json'} is damaged", FETCH_AGAIN):
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if (size := tokenizer.get_vocab_size()) > _MOST_TOKENS:
            raise damaged(folder / "tokenizer.json", f"it has {size:,} tokens, and at most {_MOST_TOKENS:,} are read")
        _check_growth(tokenizer, folder / "tokenizer.json")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        _add_missing(tokenizer, folder, special)
    ends = {tokenizer.token_to_id(special["eos_token"])} if "eos_token" in special else set()
    vocabulary = _vocabulary(tokenizer, special.get("unk_token"), {*ends, *configured_ends(folder, config)} - {None})
    pad = tokenizer.token_to_id(special["pad_token"]) if "pad_token" in special else None
    conversations = Conversations(ChatTemplate(template, special, str(folder)), vocabulary)
    described = read_optional(folder / "config.json") if config is None else config
    return TokenizerFiles(conversations, pad, _embeddings(described))


def _check_growth(tokenizer: Tokenizer, file: Path) -> None:
    """Refuse a normaliser that makes texts very long: 40 replacements of `e` by `ee` would fill any memory."""
    if tokenizer.normalizer is not None and _growth(json.loads(tokenizer.normalizer.__getstate__())) > _MOST_GROWTH:
        raise damaged(file, f"its normaliser can make a text more than {_MOST_GROWTH:,} times longer")


def _growth(normalizer: Mapping[str, Any]) -> float:
    """Return how many times longer a normaliser of `tokenizers` can make a text by replacements and prefixes."""
    if normalizer["type"] == "Sequence":
        return prod(map(_growth, normalizer["normalizers"]))
    if normalizer["type"] == "Prepend":
        return max(1, len(normalizer["prepend"]))
    if normalizer["type"] == "Replace":
        text, content = normalizer["pattern"].get("String"), len(normalizer["content"])
        return max(1, content / len(text)) if text else content + 1  # a pattern can match before each character
    return 1


def chat_template(folder: Path) -> str | None:
    """Return the chat template in chat_template.jinja or tokenizer_config.json of a folder, or None."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return read_text(file)
    given = read_optional(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(given, list):  # several templates with names
        named = {entry.get("name"): entry.get("template") for entry in given if isinstance(entry, Mapping)}
        given = named.get("default")
    return given if isinstance(given, str) and given else None


def special_tokens(folder: Path) -> dict[str, str]:
    """Return the special tokens that templates can name. In the files, a token is a text or an object.

    As in transformers, special_tokens_map.json counts if tokenizer_config.json does not list the added tokens.
    """
    given = read_optional(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in given:
        given |= read_optional(folder / "special_tokens_map.json")
    more = given.get("extra_special_tokens")
    named = {name: given.get(name) for name in _NAMED} | (more if isinstance(more, dict) else {})
    plain = {name: text.get("content") if isinstance(text, Mapping) else text for name, text in named.items()}
    return {name: text for name, text in plain.items() if isinstance(text, str)}


def configured_ends(folder: Path, config: Mapping[str, Any] | None = None) -> set[int]:
    """Return the ids of the end tokens in generation_config.json, or if it has none, in config.json.

    If `config` is not that of the folder, the folder's generation_config.json belongs to another model.

    Raises:
        ModelError: an id is no whole number, or larger than that of any token.
    """
    own = read_optional(folder / "config.json")
    config = own if config is None else config
    text = config.get("text_config")
    of_text = text.get("eos_token_id") if isinstance(text, dict) else None
    generation = read_optional(folder / "generation_config.json") if config == own else {}
    given = generation.get("eos_token_id", config.get("eos_token_id", of_text))
    listed = given if isinstance(given, list) else [given]
    if wrong := [token for token in listed if not (token is None or type(token) is int)]:
        raise damaged(folder / "generation_config.json", f"eos_token_id is {str(wrong[0])[:100]!r}, not a whole number")
    ids = {token for token in listed if token is not None and token >= 0}  # -1 stands for no token
    if large := [token for token in ids if token >= _MOST_IDS]:
        raise damaged(folder / "generation_config.json", f"eos_token_id is {large[0]}, and no token has such an id")
    return ids


def _embeddings(config: Mapping[str, Any]) -> int | None:
    text = config.get("text_config")
    size = config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
    return size if isinstance(size, int) else None


def _add_missing(tokenizer: Tokenizer, folder: Path, special: Mapping[str, str]) -> None:
    """Add the tokens that only tokenizer_config.json names, as transformers does when it loads the tokenizer."""
    from tokenizers import AddedToken

    listed = read_optional(folder / "tokenizer_config.json").get("added_tokens_decoder")
    entries = listed.values() if isinstance(listed, dict) else ()
    texts = [entry.get("content") for entry in entries if isinstance(entry, dict)]
    for text in (*texts, *(special[name] for name in _NAMED if name in special)):
        if isinstance(text, str) and text and tokenizer.token_to_id(text) is None:
            tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True)])


def _vocabulary(tokenizer: Tokenizer, unknown: str | None, ends: set[Any]) -> Vocabulary:
    added = {
        number
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if not token.content.isspace() and token.content != unknown
    }

    def encode(texts: Sequence[str]) -> list[list[int]]:
        with refusing("the model's tokenizer.json is damaged", FETCH_AGAIN):
            return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]

    return Vocabulary(
        encode=encode,
        text=lambda number: tokenizer.id_to_token(number) or str(number),
        decode=lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False),
        added=frozenset(added),
        ends=frozenset(ends),
    )
