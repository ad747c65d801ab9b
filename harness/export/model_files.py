"""Text files of a merged model: configuration, generation settings, tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_PLAIN = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*")
_LICENCES = ("LICENSE*", "LICENCE*", "USE_POLICY*", "NOTICE*")


def plain_files(base: Path) -> list[Path]:
    """The base's tokenizer, chat template and licence files, which are copied unchanged."""
    found = {path for pattern in (*_PLAIN, *_LICENCES) for path in base.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.suffix not in (".bin", ".py", ".safetensors"))


def config_of(base: Path, dtype: str, *, untied: bool) -> dict[str, Any]:
    """The base's config.json, changed for a merged model with plain weights in `dtype`.

    With a quantization_config, transformers would read the plain weights as packed ones.
    """
    config = _json(base / "config.json")
    config.pop("quantization_config", None)
    config.pop("torch_dtype", None)  # the name in transformers 4
    config["dtype"] = dtype
    if untied:
        config["tie_word_embeddings"] = False
    return config


def generation_config_of(base: Path) -> dict[str, Any]:
    """The base's own, with every end token of the evaluation."""
    config = _json(base / "generation_config.json") or {"_from_model_config": False}
    of_model = config.get("eos_token_id", _json(base / "config.json").get("eos_token_id"))
    listed = of_model if isinstance(of_model, list) else [of_model]
    ends = sorted({token for token in (*listed, _end_of_tokenizer(base)) if isinstance(token, int)})
    return config | ({"eos_token_id": ends if len(ends) > 1 else ends[0]} if ends else {})


def tokenizer_config_of(base: Path) -> dict[str, Any]:
    """The base's own, completed with the special tokens and with whether a text gets a leading space.

    llama.cpp's converter reads both here only. If only tokenizer.json has them, it tokenises a template's `<|user|>` as
    plain letters and puts a space before every message, so the model gets prompts that it was not trained on.
    """
    config, held = _json(base / "tokenizer_config.json"), _json(base / "tokenizer.json")
    added = [token for token in held.get("added_tokens", []) if isinstance(token, dict)]
    listed = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added}
    found: dict[str, Any] = {"added_tokens_decoder": listed} if listed else {}
    if held.get("model", {}).get("byte_fallback") and not _puts_a_space_in_front(held):
        found["add_prefix_space"] = False
    return found | config


def _puts_a_space_in_front(tokenizer: dict[str, Any]) -> bool:
    """Whether the tokenizer adds SentencePiece's dummy prefix: a Prepend, or a Metaspace that is not `never`."""
    steps = json.dumps([tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")])
    return '"Prepend"' in steps or ('"Metaspace"' in steps and '"never"' not in steps)


def _end_of_tokenizer(base: Path) -> int | None:
    """Id of the end token in the tokenizer's files."""
    name = _json(base / "tokenizer_config.json").get("eos_token") or _json(base / "special_tokens_map.json").get(
        "eos_token"
    )
    text = name.get("content") if isinstance(name, dict) else name
    held = _json(base / "tokenizer.json")
    added = {token["content"]: token["id"] for token in held.get("added_tokens", []) if isinstance(token, dict)}
    vocabulary = held.get("model", {}).get("vocab", {})
    found = added.get(text, vocabulary.get(text) if isinstance(vocabulary, dict) else None)
    return found if isinstance(found, int) else None


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}
