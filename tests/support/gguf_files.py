"""Small GGUF files: the pocket model as llama.cpp's converter writes it, and headers of any content."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.models.resolving import POCKET
from harness.models.tokenizer_files import chat_template

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
"""Types of tokens in a GGUF file."""
_PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_ENDS = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def pocket_as_gguf(path: Path, kind: str = "F16", **metadata: str | int) -> Path:
    """Write the pocket model as a GGUF file whose matrices have the type `kind`, such as Q8_0."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize
    from safetensors.numpy import load_file

    config = json.loads((POCKET / "config.json").read_text(encoding="utf-8"))
    writer = GGUFWriter(path, "llama")
    writer.add_name("pocket")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer)
    for name, value in metadata.items():
        add = writer.add_uint32 if isinstance(value, int) else writer.add_string
        add(name, value)
    for name, weights in load_file(POCKET / "model.safetensors").items():
        given = _as_llama_cpp(name, weights.astype(np.float32), config["num_attention_heads"])
        own = GGMLQuantizationType[kind] if given.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(_name(name), quantize(given, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any) -> None:
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(POCKET / "tokenizer.model"))
    ids = range(len(pieces))
    special = {token["id"] for token in json.loads((POCKET / "tokenizer.json").read_text())["added_tokens"]}
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(i) for i in ids])
    writer.add_token_scores([pieces.get_score(i) for i in ids])
    writer.add_token_types([_token_type(pieces, i, special) for i in ids])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(3)
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat_template(POCKET))


def _token_type(pieces: Any, token: int, special: set[int]) -> int:
    if pieces.is_unknown(token):
        return UNKNOWN
    if pieces.is_byte(token):
        return BYTE
    return CONTROL if token in special else NORMAL


def _name(name: str) -> str:
    if name in _ENDS:
        return _ENDS[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{_PARTS[part.removesuffix('.weight')]}.weight"


def _as_llama_cpp(name: str, weights: Any, heads: int) -> Any:
    """Reorder the rows of queries and keys as llama.cpp needs them: it rotates neighbours, transformers halves."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return weights
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def header(
    metadata: Mapping[str, str | int], tensors: Mapping[str, tuple[int, ...]], *, kind: int = 0, version: int = 3
) -> bytes:
    """Return the header of a GGUF file with these metadata, and tensors of type `kind` with these shapes."""
    content = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for name, value in metadata.items():
        content += _text(name)
        content += struct.pack("<II", 4, value) if isinstance(value, int) else struct.pack("<I", 8) + _text(value)
    for name, shape in tensors.items():
        content += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
    return content


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()
