"""Read the header of a GGUF file: its metadata and the name, shape and type of every tensor. No weight is read.

The layout is described in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The package `gguf` needs several
seconds for a header, because it makes an array of every token, and it does not limit what a damaged file can claim.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from harness.core.errors import ModelError

MAGIC = b"GGUF"
ROPE_FACTORS = "rope_freqs.weight"
"""Name of the tensor with the divisors of the frequencies of RoPE, as files of Llama 3.1 and later have it."""
_ALIGNMENT = 32
"""Alignment of tensors in bytes, unless the metadata name another."""
_MOST = 1 << 22
"""Largest number of tensors, metadata entries and elements of all arrays. Vocabularies have fewer than 2**19 texts."""
_LONGEST = 1 << 22
"""Largest length of a text in bytes. Chat templates have thousands."""
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of metadata values that are numbers, as formats of `struct`."""
_TEXT, _ARRAY = 8, 9
_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""Names of the types of tensors (`ggml_type`)."""
_UNQUANTISED = ("F64", "F32", "F16", "BF16")
_KINDS = {"llama": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Architectures with predictions of memory and time, and their `model_type` in transformers."""


@dataclass(frozen=True)
class Header:
    """The header of a GGUF file. `metadata` has the number of elements in place of each array."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    """The type and the shape of each tensor, by its name."""
    rope_factors: tuple[float, ...] = ()
    """The divisors of the frequencies of position embeddings (RoPE); empty if the file has none."""
    least_size: int = 0
    """A number of bytes that the file has if it is complete. It may have more."""

    @property
    def architecture(self) -> str:
        """The architecture's name in llama.cpp, such as `llama`; empty if the file names none."""
        name = self.metadata.get("general.architecture")
        return name if isinstance(name, str) else ""

    @property
    def chat_template(self) -> str:
        """The chat template; empty if the file has none."""
        template = self.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) else ""

    @property
    def space_prefix(self) -> bool:
        """Whether the tokenizer puts a space before a text. Files that do not say so are of tokenizers that do."""
        return bool(self.metadata.get("tokenizer.ggml.add_space_prefix", True))

    @property
    def special_tokens(self) -> dict[str, int]:
        """The ids of the special tokens, by the names that transformers gives to them (`eos_token` and others)."""
        return self._ids({"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"})

    @property
    def end_tokens(self) -> list[int]:
        """The ids of the tokens that end an answer: end of text, of turn, and of message."""
        return sorted(set(self._ids({"eos": "eos", "eot": "eot", "eom": "eom"}).values()))

    def _ids(self, names: Mapping[str, str]) -> dict[str, int]:
        found = {name: self.metadata.get(f"tokenizer.ggml.{key}_token_id") for key, name in names.items()}
        return {name: token for name, token in found.items() if isinstance(token, int)}

    def of_model(self, name: str) -> Any:
        """Return a value of the architecture, such as `block_count`; None if the file has none."""
        return self.metadata.get(f"{self.architecture}.{name}")

    @property
    def weights(self) -> int:
        """Number of weights in all tensors, without the divisors of RoPE, which are no weights."""
        return sum(prod(shape) for name, (_, shape) in self.tensors.items() if name != ROPE_FACTORS)

    @property
    def quantisation(self) -> str:
        """The type that most quantised weights have, such as Q4_1; of unquantised files, that of most weights."""
        counts: Counter[str] = Counter()
        for kind, shape in self.tensors.values():
            counts[kind] += prod(shape)
        quantised = Counter({kind: count for kind, count in counts.items() if kind not in _UNQUANTISED})
        most = (quantised or counts).most_common(1)
        return most[0][0] if most else ""

    @property
    def quantised(self) -> bool:
        return self.quantisation not in _UNQUANTISED

    @property
    def dtype(self) -> str:
        """The 16-bit type that holds the weights: bfloat16 if the file has such weights, else float16."""
        return "bfloat16" if any(kind == "BF16" for kind, _ in self.tensors.values()) else "float16"

    @property
    def config(self) -> dict[str, Any]:
        """The sizes of the model, as the file config.json of transformers names them. Predictions need them."""
        heads = self.of_model("attention.head_count")
        vocabulary = self.of_model("vocab_size") or self.metadata.get("tokenizer.ggml.tokens")
        return {
            "model_type": _KINDS.get(self.architecture, self.architecture),
            "hidden_size": self.of_model("embedding_length"),
            "num_hidden_layers": self.of_model("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.of_model("attention.head_count_kv") or heads,
            "head_dim": self.of_model("attention.key_length"),
            "intermediate_size": self.of_model("feed_forward_length"),
            "vocab_size": vocabulary,
            "tie_word_embeddings": "output.weight" not in self.tensors,
            "attention_bias": "blk.0.attn_q.bias" in self.tensors,
            "num_experts": self.of_model("expert_count"),
        }


def is_gguf(path: Path) -> bool:
    """Whether this is a file that begins as GGUF files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file of version 2 or 3.

    Raises:
        ModelError: the file is damaged, or has another version.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _header(_Reader(content))
    except (struct.error, ValueError, OverflowError) as error:
        remedy = "Download or copy the file again. A file of GGUF version 1 must be made again with llama.cpp."
        raise ModelError(f"{path} is not a complete GGUF file: {error}", remedy=remedy) from None


class _Reader:
    """Reads values from the beginning of a file to its end."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self._at, self._counted = content, 0, 0

    @property
    def at(self) -> int:
        """The place of the next value, in bytes."""
        return self._at

    def numbers(self, form: str, count: int, at: int) -> tuple[float, ...]:
        """Return `count` numbers at the place `at`."""
        return struct.unpack_from(f"<{count}{form}", self._content, at)

    def number(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self._content, self._at)
        self._at += struct.calcsize(f"<{form}")
        return value

    def count(self) -> int:
        found = int(self.number("Q"))
        self._counted += found
        if self._counted > _MOST:
            raise ValueError(f"it names {self._counted} entries")
        return found

    def text(self) -> str:
        length = int(self.number("Q"))
        if length > _LONGEST or self._at + length > len(self._content):
            raise ValueError(f"it has a text of {length} bytes")
        self._at += length
        return self._content[self._at - length : self._at].decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            return self._skip_array()
        if kind not in _NUMBERS:
            raise ValueError(f"it has a value of the unknown type {kind}")
        return self.number(_NUMBERS[kind])

    def _skip_array(self) -> int:
        """Skip an array, and return the number of its elements. No architecture nests arrays."""
        kind, length = int(self.number("I")), self.count()
        if kind == _TEXT:
            for _ in range(length):
                self.text()
        elif kind in _NUMBERS:
            self._at += length * struct.calcsize(f"<{_NUMBERS[kind]}")
        else:
            raise ValueError(f"it has an array of the unknown type {kind}")
        return length


def _header(reader: _Reader) -> Header:
    if reader.number("4s") != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = reader.number("I")
    if version not in (2, 3):
        raise ValueError(f"it has version {version}")
    tensors, entries = reader.count(), reader.count()
    metadata = {reader.text(): reader.value(reader.number("I")) for _ in range(entries)}
    found = {name: (kind, shape, place) for name, kind, shape, place in (_tensor(reader) for _ in range(tensors))}
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    alignment = alignment if isinstance(alignment, int) else _ALIGNMENT
    end = reader.at
    factors = _factors(reader, found.get(ROPE_FACTORS), alignment)
    ends = (place + prod(shape) * _least_bits(kind) // 8 for kind, shape, place in found.values())
    least = end + max(ends, default=0)
    return Header(metadata, {name: (kind, shape) for name, (kind, shape, _) in found.items()}, factors, least)


def _least_bits(kind: str) -> int:
    """Return a number of bits that each weight of this type takes at least: names such as Q4_K begin with it."""
    return int(found[0]) if (found := re.search(r"\d+", kind)) and not kind.startswith("type") else 0


def _factors(reader: _Reader, tensor: tuple[str, tuple[int, ...], int] | None, alignment: int) -> tuple[float, ...]:
    """Read the divisors of RoPE, if the file has them. The tensors begin at the first multiple of `alignment`."""
    if tensor is None:
        return ()
    kind, shape, place = tensor
    if kind != "F32" or len(shape) != 1 or shape[0] > _MOST or alignment < 1:
        raise ValueError(f"its tensor {ROPE_FACTORS} has type {kind} and shape {shape}")
    return reader.numbers("f", shape[0], -(-reader.at // alignment) * alignment + place)


def _tensor(reader: _Reader) -> tuple[str, str, tuple[int, ...], int]:
    """Read the name, type, shape and place of a tensor. Places are counted from the first tensor, in bytes."""
    name, dimensions = reader.text(), int(reader.number("I"))
    if dimensions > 8:
        raise ValueError(f"its tensor {name[:40]!r} has {dimensions} dimensions")
    shape = tuple(int(reader.number("Q")) for _ in range(dimensions))
    kind = int(reader.number("I"))
    return name, _TYPES.get(kind, f"type {kind}"), shape, int(reader.number("Q"))
