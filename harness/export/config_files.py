"""The JSON and text files of a merged model: config.json, generation_config.json, and the tokenizer's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.models.foreign_files import is_plain_file, read_optional
from harness.models.tokenizer_files import configured_ends, read_tokenizer

_PLAIN = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*")
_LICENCES = ("LICENSE*", "LICENCE*", "USE_POLICY*", "NOTICE*")


def plain_files(base: Path) -> list[Path]:
    """Paths of those files of the base model that are copied unchanged: tokenizer, chat template and licence."""
    found = {path for pattern in (*_PLAIN, *_LICENCES) for path in base.glob(pattern) if is_plain_file(path)}
    return sorted(path for path in found if path.suffix not in (".bin", ".py", ".safetensors"))


def config_of(base: Path, dtype: str, *, untied: bool) -> dict[str, Any]:
    """The base's config.json, changed for a merged model with unquantised weights in `dtype`.

    `quantization_config` is removed, because with it transformers would read the weights as quantised.
    """
    config = read_optional(base / "config.json")
    config.pop("quantization_config", None)
    config.pop("torch_dtype", None)  # the name of `dtype` in transformers 4
    config["dtype"] = dtype
    if untied:
        config["tie_word_embeddings"] = False
    return config


def generation_config_of(base: Path) -> dict[str, Any]:
    """The base's generation_config.json, with all end-of-sequence tokens at which answers ended in the evaluation."""
    config = read_optional(base / "generation_config.json") or {"_from_model_config": False}
    found = read_tokenizer(base)
    ends = sorted(configured_ends(base) if isinstance(found, str) else found.conversations.ends)
    return config | ({"eos_token_id": ends if len(ends) > 1 else ends[0]} if ends else {})


def tokenizer_config_of(base: Path) -> dict[str, Any]:
    """The base's tokenizer_config.json, with `added_tokens_decoder` and `add_prefix_space` added if they are missing.

    llama.cpp's converter reads both settings only from this file. If they are only in tokenizer.json, llama.cpp splits
    `<|user|>` in a chat template into letters and adds a space before every message, so the model gets prompts of
    another form than in training.
    """
    config, held = read_optional(base / "tokenizer_config.json"), read_optional(base / "tokenizer.json")
    added = [token for token in held.get("added_tokens", []) if isinstance(token, dict)]
    listed = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added}
    found: dict[str, Any] = {"added_tokens_decoder": listed} if listed else {}
    if held.get("model", {}).get("byte_fallback") and not _adds_prefix_space(held):
        found["add_prefix_space"] = False
    return found | config | _end_of_turns(base)


def _end_of_turns(base: Path) -> dict[str, Any]:
    """The closing token of the chat template as `eos_token`, if the configuration does not name it as an end.

    llama.cpp's converter reads the end token only from here. If the template itself uses `eos_token`, nothing is
    changed, because the template would then render other texts than in training.
    """
    found = read_tokenizer(base)
    if isinstance(found, str) or "eos_token" in found.conversations.template.source:
        return {}
    turns = found.conversations.turns()
    return {} if turns.named else {"eos_token": turns.end_text}


def _adds_prefix_space(tokenizer: dict[str, Any]) -> bool:
    """Whether tokenizer.json adds a space before a text: by a Prepend step, or by a Metaspace step without `never`."""
    steps = json.dumps([tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")])
    return '"Prepend"' in steps or ('"Metaspace"' in steps and '"never"' not in steps)
