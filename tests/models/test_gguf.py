"""Tests of reading the header of a GGUF file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.core.errors import ModelError
from harness.models.gguf import is_gguf, read_header
from tests.support.gguf_files import header

LLAMA = {
    "general.architecture": "llama",
    "llama.embedding_length": 64,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.feed_forward_length": 128,
    "llama.vocab_size": 100,
    "tokenizer.chat_template": "{{ messages }}",
}
TENSORS = {"token_embd.weight": (64, 100), "output_norm.weight": (64,)}
TEXT, ARRAY = 8, 9
MANY_TEXTS = struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", ARRAY, TEXT, 1 << 20) + bytes(8 << 20)
"""An entry whose value is an array of 2**20 empty texts. An array by itself may have more."""
FAR = (
    b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    + struct.pack("<Q", 17) + b"rope_freqs.weight" + struct.pack("<IQIQ", 1, 1, 0, 2**64 - 1)
)  # fmt: skip
"""A header whose tensor begins behind the largest place of any file."""


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def test_metadata_and_tensors_are_read(tmp_path: Path) -> None:
    """The header of a GGUF file gives its metadata, its tensors, and the sizes that config.json would have."""
    found = read_header(written(tmp_path, header(LLAMA, TENSORS, kind=3)))
    assert found.architecture == "llama"
    assert found.chat_template == "{{ messages }}"
    assert found.tensors == {"token_embd.weight": ("Q4_1", (64, 100)), "output_norm.weight": ("Q4_1", (64,))}
    assert found.weights == 6464
    assert found.config["hidden_size"] == 64
    assert found.config["num_key_value_heads"] == found.config["num_attention_heads"] == 4
    assert found.config["tie_word_embeddings"]


def test_arrays_are_counted(tmp_path: Path) -> None:
    """The metadata have the number of elements in place of an array, for example of the list of tokens."""
    tokens = b"".join(struct.pack("<Q", 1) + letter for letter in (b"a", b"b", b"c"))
    name = b"tokenizer.ggml.tokens"
    entry = struct.pack("<Q", len(name)) + name + struct.pack("<IIQ", ARRAY, TEXT, 3) + tokens
    found = read_header(written(tmp_path, b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry))
    assert found.metadata == {"tokenizer.ggml.tokens": 3}


@pytest.mark.parametrize(
    ("kind", "name", "quantised", "dtype"),
    [(3, "Q4_1", True, "float16"), (1, "F16", False, "float16"), (30, "BF16", False, "bfloat16")],
)
def test_the_type_of_the_weights(tmp_path: Path, kind: int, name: str, quantised: bool, dtype: str) -> None:
    """The type of most weights is named, and says in which 16-bit type they can be stored."""
    found = read_header(written(tmp_path, header(LLAMA, TENSORS, kind=kind)))
    assert (found.quantisation, found.quantised, found.dtype) == (name, quantised, dtype)


@pytest.mark.parametrize(
    "content",
    [
        b"GGUF",
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<I", 99),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", ARRAY, TEXT, 1 << 60),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", ARRAY, ARRAY, 1),
        header(LLAMA, TENSORS)[:-1],
        header(LLAMA, {"token_embd.weight": (1,) * 9}),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 6) + MANY_TEXTS * 6,
        FAR,
    ],
    ids=["empty", "version", "tensors", "length", "type", "array", "nested", "cut", "dimensions", "arrays", "far"],
)
def test_a_damaged_header_is_refused(tmp_path: Path, content: bytes) -> None:
    """If a header is cut off or claims impossible sizes, one error names the file, within a second."""
    path = written(tmp_path, content)
    with pytest.raises(ModelError) as caught:
        read_header(path)
    assert f"{path} is not a complete GGUF file" in caught.value.message
    assert "Download" in caught.value.remedy


def test_a_gguf_file_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    """A file with any name is a GGUF file if it begins with the letters GGUF; a folder is none."""
    assert is_gguf(written(tmp_path, b"GGUF..."))
    assert not is_gguf(written(tmp_path, b"lmgg"))
    assert not is_gguf(tmp_path)


def test_special_tokens_and_end_tokens(tmp_path: Path) -> None:
    """The header gives the ids of special tokens by transformers' names, and of all tokens that end an answer."""
    ids = {"bos_token_id": 1, "eos_token_id": 7, "eot_token_id": 5, "unknown_token_id": 0, "eom_token_id": 7}
    metadata = LLAMA | {f"tokenizer.ggml.{name}": token for name, token in ids.items()}
    found = read_header(written(tmp_path, header(metadata, TENSORS)))
    assert found.special_tokens == {"bos_token": 1, "eos_token": 7, "unk_token": 0}
    assert found.end_tokens == [5, 7]
