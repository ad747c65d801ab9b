"""Tests that the files of models and adapters are judged before they are used."""

from __future__ import annotations

import ast
import json
import os
import shutil
import struct
from pathlib import Path

import pytest

import harness
from harness.core.errors import ModelError
from harness.models.foreign_files import check_folder, is_plain_file, read_object, read_text, refusing, tensor_shapes
from harness.models.resolving import POCKET, check_name, resolve
from harness.models.tokenizer_files import read_tokenizer

PACKAGE = Path(harness.__file__).parent
READERS = {
    "engine/batched_worker.py": "a queue, not a file",
    "engine/calibration.py": "a shape of this package",
    "engine/embedding_process.py": "the list of an embedding model's modules, in a limited process",
    "engine/fingerprint.py": "an adapter that this process trained",
    "engine/generation/adapter_reader.py": "an adapter that was trained here, or was checked when it was found",
    "engine/gguf_conversion.py": "what the parent process writes",
    "engine/merging.py": "weights, whose headers were checked when the model was found; errors are converted",
    "engine/kernels.py": "tensors on the GPU",
    "engine/quantized_base.py": "a base that the harness saved, with a manifest",
    "engine/trainers/fused/trial_state.py": "a state that the harness saved, with a manifest; tensors only",
    "engine/worker_streams.py": "what the parent process writes, and the worker's own log",
    "models/foreign_files.py": "the owner",
    "models/gguf.py": "the header of a GGUF file, with limits of its own",
    "models/gguf_bases.py": "what the child process prints",
    "models/peculiarities.py": "the source text of transformers",
    "models/tokenizer_files.py": "the description of a normaliser that the tokenizers library has read",
    "models/resolving.py": "the first four bytes of a file",
}
"""Modules that read files or JSON themselves, with what they read."""


def reads(file: Path) -> bool:
    """Whether a module reads a file or JSON without the owner."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in {"read_text", "read_bytes", "loads", "load", "open"}:
            return True
        if isinstance(node, ast.ImportFrom) and "safe_open" in {name.name for name in node.names}:
            return True
    return False


def test_every_reader_of_foreign_files_is_the_owner() -> None:
    """In the rooms that handle models, only the modules of `READERS` read files, and none of those are a model's."""
    files = [file for room in ("models", "engine", "hardware/estimate") for file in (PACKAGE / room).rglob("*.py")]
    found = {str(file.relative_to(PACKAGE)) for file in files if reads(file)}
    assert found - {"hardware/estimate/__init__.py"} == set(READERS)


def copy(folder: Path) -> Path:
    return Path(shutil.copytree(POCKET, folder / "model"))


def write(path: Path, content: object) -> None:
    path.unlink(missing_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def use(folder: Path) -> None:
    """Resolve the model in a folder and read its tokenizer, as every command does that uses a model."""
    resolve(str(folder))
    read_tokenizer(folder)


def header(text: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if size is None else size) + text


CONFIG = json.loads((POCKET / "config.json").read_text(encoding="utf-8"))
TEXTS = {
    "nested": ("config.json", "[" * 100_000, "nested|recursion"),
    "nested a little": ("config.json", '{"a":' * 100 + "1" + "}" * 100, "levels deep"),
    "long number": ("config.json", '{"model_type": "llama", "x": ' + "9" * 6000 + "}", "6000 characters"),
    "infinite": ("config.json", '{"model_type": "llama", "x": 1e999}', "too large"),
    "list": ("config.json", "[]", "does not hold a JSON object"),
    "kind": ("config.json", CONFIG | {"model_type": ["x"]}, "model_type is"),
    "negative": ("config.json", CONFIG | {"hidden_size": -1}, "hidden_size is -1"),
    "layers": ("config.json", CONFIG | {"num_hidden_layers": 10**7}, "num_hidden_layers is 10000000"),
    "huge": ("config.json", CONFIG | {"x": "x" * 5 * 2**20}, "at most 4 are read"),
    "tokenizer": ("tokenizer.json", "[" * 100_000, "tokenizer.json is damaged"),
    "huge tokenizer": ("tokenizer.json", {"x": "x" * 65 * 2**20}, "at most 64 are read"),
    "tokenizer settings": ("tokenizer_config.json", "[" * 100_000, "tokenizer_config.json is damaged"),
    "end tokens": ("generation_config.json", "{", "generation_config.json is damaged"),
    "end token that is a text": ("generation_config.json", {"eos_token_id": "x"}, "'x', not a whole number"),
    "end token that is an object": ("generation_config.json", {"eos_token_id": [1, {"a": 1}]}, "not a whole number"),
    "huge end token": ("generation_config.json", {"eos_token_id": 10**30}, "no token has such an id"),
    "index of lists": ("model.safetensors.index.json", {"weight_map": {"a": ["x"]}}, "is not the name of a file"),
    "index of numbers": ("model.safetensors.index.json", {"weight_map": {"a": 1, "b": "x"}}, "is not the name"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_damaged_text_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    """A damaged file of a model gives a `ModelError` with the file's name and a remedy."""
    file, content, message = TEXTS[name]
    folder = copy(tmp_path)
    write(folder / file, content)
    with pytest.raises(ModelError, match=message) as caught:
        use(folder)
    assert file.partition(".")[0] in str(caught.value)
    assert caught.value.remedy


def test_a_template_that_is_not_utf8(tmp_path: Path) -> None:
    """A chat template in another encoding is a damaged file."""
    folder = copy(tmp_path)
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe\xe9")
    with pytest.raises(ModelError, match=r"chat_template\.jinja is damaged"):
        check_name(str(folder))


@pytest.mark.parametrize("kind", ["pipe", "device", "outside", "dangling"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    """A pipe, a device and a link that leaves the folder are refused where a library could open them."""
    folder = copy(tmp_path)
    path = folder / "extra.json"
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"device": "/dev/zero", "outside": secret, "dangling": tmp_path / "none"}[kind])
    with pytest.raises(ModelError, match=r"extra\.json"):
        resolve(str(folder))
    with pytest.raises(ModelError, match=r"extra\.json"):
        read_text(path)
    assert not is_plain_file(path)


def test_links_of_the_hubs_cache_are_read(tmp_path: Path) -> None:
    """A link from `snapshots/COMMIT` to `blobs`, and one inside a folder, are read."""
    blobs, commit = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    shutil.copytree(POCKET, blobs)
    commit.mkdir(parents=True)
    for blob in blobs.iterdir():
        (commit / blob.name).symlink_to(Path("../../blobs") / blob.name)
    check_folder(commit)
    (blobs / "more.json").symlink_to("config.json")
    check_folder(blobs)
    assert read_object(commit / "config.json") == CONFIG


HEADERS = {
    "size of 4 EiB": header(b"{}", 1 << 62),
    "shape of 2^80": header(b'{"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,4]}}')
    + b"0000",
    "no JSON": header(b"{{{{"),
    "empty": b"",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_damaged_header_of_weights(tmp_path: Path, name: str) -> None:
    """A safetensors file whose header is damaged is an error before a worker starts."""
    folder = copy(tmp_path)
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(HEADERS[name])
    with pytest.raises(ModelError, match=r"safetensors is damaged"):
        resolve(str(folder))


def test_a_vocabulary_that_is_too_large(tmp_path: Path) -> None:
    """A tokenizer of more than a million tokens is refused after it was read once, since each read takes seconds."""
    folder = copy(tmp_path)
    tokens = ",".join(f'"{number}":{number}' for number in range(1_000_001))
    model = f'{{"type":"WordLevel","unk_token":"0","vocab":{{{tokens}}}}}'
    (folder / "tokenizer.json").write_text(f'{{"version":"1.0","added_tokens":[],"model":{model}}}', encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json is damaged: it has 1,000,001 tokens, and at most 1,000,000"):
        read_tokenizer(folder)


@pytest.mark.parametrize("pattern", [{"String": "e"}, {"Regex": "x*"}])
def test_a_normaliser_that_makes_texts_long(tmp_path: Path, pattern: dict[str, str]) -> None:
    """A tokenizer whose replacements together make texts a thousand times longer is refused before it gets a text."""
    folder = copy(tmp_path)
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    twice = {"type": "Replace", "pattern": pattern, "content": "ee"}
    whole["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}, *[twice] * 40]}
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json is damaged: its normaliser can make a text more than 1,000"):
        read_tokenizer(folder)


def test_a_folder_with_too_many_files(tmp_path: Path) -> None:
    """A folder with more files than any model has is refused before its files are looked at."""
    for number in range(2_001):
        (tmp_path / f"{number}.json").touch()
    with pytest.raises(ModelError, match="more than 2,000 files"):
        check_folder(tmp_path)


def test_the_pocket_model_passes(tmp_path: Path) -> None:
    """A sound model has no error, and its shapes are those of its file."""
    folder = copy(tmp_path)
    check_folder(folder)
    shapes = tensor_shapes(next(folder.glob("*.safetensors")))
    assert (CONFIG["vocab_size"], CONFIG["hidden_size"]) in shapes.values()


def test_panics_of_rust_are_errors_and_others_pass() -> None:
    """A panic in a library written in Rust becomes a `ModelError`; Ctrl-C and a lack of memory pass."""
    panic = type("PanicException", (BaseException,), {})
    for error in (panic("index out of bounds\nmore"), TypeError("x")):
        with pytest.raises(ModelError, match="damaged: "), refusing("it is damaged", "Do this."):
            raise error
    for error in (KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(error)), refusing("it is damaged", "Do this."):
            raise error
