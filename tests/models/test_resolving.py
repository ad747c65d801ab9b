"""Tests of finding a base model by its name, and of refusing unusable models with a remedy."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from huggingface_hub import errors as hub
from safetensors.numpy import save_file

from harness.core.errors import ModelError
from harness.models.hub import Hub, Listing
from harness.models.resolving import POCKET, check_name, resolve

GGUF = b"GGUF\x03\x00\x00\x00"
LLAMA = "meta-llama/Llama-2-7b-chat-hf"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder `mine` with the pocket model's files. Its weights are small, since only their header is read."""
    folder = tmp_path / "mine"
    shutil.copytree(POCKET, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file({f"layer{n}": np.zeros(1000, np.float16) for n in range(10)}, folder / "model.safetensors")
    return folder


@dataclass
class Fake:
    """A Hub with one model, which is in `folder` (named after the commit). If `error` is set, `listing` raises it."""

    folder: Path
    error: Exception | None = None
    free: int = 10**12
    sizes: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str | None, tuple[str, ...]]] = field(default_factory=list)

    def listing(self, repository: str, revision: str | None) -> Listing:
        if self.error:
            raise self.error
        files = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
        return Listing(self.folder.name, {name: path.stat().st_size for name, path in files.items()} | self.sizes)

    def fetch(self, repository: str, revision: str | None, files: Sequence[str]) -> Path:
        self.asked.append((repository, revision, tuple(files)))
        return self.folder

    def cached_folder(self, repository: str, revision: str | None) -> Path | None:
        return None

    def free_bytes(self) -> int:
        return self.free


def refused(name: str, hub: Hub | None = None) -> ModelError:
    """Return the error that this model name causes, after checking that it has a remedy."""
    with pytest.raises(ModelError) as caught:
        resolve(name, hub=hub)
    assert caught.value.remedy
    assert "\n" not in caught.value.message
    return caught.value


def without_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def failing(error: Exception) -> Hub:
    """Return a Hub on which every listing raises this error."""
    return Fake(Path(), error)


# --- names with a model ----------------------------------------------------------------------------------------------


def test_pocket_is_a_name_for_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name `pocket` means the toy model, even if the working directory has a folder of that name."""
    (tmp_path / "pocket").mkdir()
    monkeypatch.chdir(tmp_path)
    found = resolve("pocket")
    assert (found.name, found.path, found.toy) == ("pocket", str(POCKET), True)


def test_a_folder_is_a_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's folder can be named by any of its paths, and the model is named after the folder."""
    monkeypatch.chdir(model.parent)
    monkeypatch.setenv("HOME", str(model.parent))
    names = (str(model), "mine", "./mine", "mine/", "mine/../mine", "~/mine")
    assert {(found.name, found.path, found.toy) for found in map(resolve, names)} == {("mine", str(model), False)}


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.model", "chat_template.jinja"])
def test_the_digest_covers_what_determines_answers(model: Path, file: str) -> None:
    """A model's digest changes if a byte of its weights, config, tokenizer or chat template changes."""
    before = resolve(str(model)).digest
    content = bytearray((model / file).read_bytes())
    if file == "model.safetensors":
        content[-1] ^= 1
    (model / file).write_bytes(content if file == "model.safetensors" else content + b" ")
    assert resolve(str(model)).digest != before


def test_the_digest_does_not_cover_the_card(model: Path) -> None:
    """A model's digest does not depend on its card or on the name of its folder."""
    before = resolve(str(model)).digest
    (model / "README.md").write_text("more", encoding="utf-8")
    moved = model.rename(model.with_name("moved"))
    assert resolve(str(moved)).digest == before


def test_a_model_of_the_hub_is_fetched(model: Path) -> None:
    """`owner/name@revision` is downloaded from the Hub, small files before the weights, and its commit is recorded."""
    for name in ("model.bin", "model.gguf", "setup.py", "consolidated.safetensors", "onnx/model.onnx", "README.md"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"not wanted")
    shutil.copy(model / "model.safetensors", model / "consolidated.safetensors")
    hub = Fake(model)
    found = resolve(f"{LLAMA}@main", hub=hub)
    assert (found.name, found.path, found.revision) == (LLAMA, str(model), "mine")
    small, whole = (files for _, _, files in hub.asked)
    assert set(whole) - set(small) == {"model.safetensors"}
    assert {"config.json", "tokenizer.json", "chat_template.jinja"} <= set(small)
    assert [asked[:2] for asked in hub.asked] == [(LLAMA, "main")] * 2
    assert resolve(LLAMA, hub=hub).digest == found.digest
    assert hub.asked[-1][:2] == (LLAMA, None)


def test_a_model_that_cannot_be_used_is_not_fetched(model: Path) -> None:
    """If a model on the Hub has no chat template, this is reported before the weights are downloaded."""
    without_template(model)
    hub = Fake(model)
    assert "has no chat template" in refused(LLAMA, hub).message
    assert [files for _, _, files in hub.asked if "model.safetensors" in files] == []


def test_a_model_that_does_not_fit_is_not_fetched(model: Path) -> None:
    """If the disk has too little space for the weights, an error gives both sizes and HF_HOME before the download."""
    hub = Fake(model, sizes={"model.safetensors": 13_500_000_000}, free=12_000_000_000)
    error = refused(LLAMA, hub)
    assert "needs 13.5 GB, and 12.0 GB are free" in error.message
    assert "HF_HOME" in error.remedy
    assert len(hub.asked) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["pytorch_model.bin"], "only as pickles"),
        (["adapter_config.json", "adapter_model.safetensors"], "is an adapter"),
        (["README.md"], "holds no .safetensors file"),
    ],
    ids=["pickles", "adapter", "nothing"],
)
def test_a_model_without_safetensors_is_not_fetched(model: Path, files: list[str], message: str) -> None:
    """A repository without a file of safetensors weights is refused before anything is downloaded."""
    (model / "model.safetensors").unlink()
    for name in files:
        (model / name).write_bytes(b"x")
    hub = Fake(model)
    assert message in refused(LLAMA, hub).message
    assert hub.asked == []


def test_a_model_that_changes_while_it_is_fetched_is_refused(model: Path) -> None:
    """If a model changes on the Hub during the download, it is refused, because its new files were not checked."""
    hub = Fake(model)
    other = model.with_name("other")
    shutil.copytree(model, other)
    hub.fetch = lambda repository, revision, files: other  # type: ignore[method-assign]
    assert "changed on the Hub during the download" in refused(LLAMA, hub).message


def test_a_folder_called_gguf_may_hold_a_model(model: Path) -> None:
    """A folder with safetensors is accepted, even if its name has `gguf` in it or it also holds a GGUF file."""
    (model / "also.gguf").write_bytes(GGUF)
    renamed = model.rename(model.with_name("before-gguf"))
    assert resolve(str(renamed)).name == "before-gguf"


# --- names without a model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["./models/x", "/models/x", "models/x/y", "~/nothing", "C:\\models\\x", "../x"])
def test_a_missing_path(name: str) -> None:
    """If a name can only be a path, and no such folder exists, the error says that there is no folder."""
    assert refused(name).message == f"there is no folder {name}"


@pytest.mark.parametrize("name", ["pockett", "@", "a b"])
def test_an_unknown_name(name: str) -> None:
    """If a name is neither a path nor a possible name on the Hub, the remedy says which names are possible."""
    error = refused(name)
    assert error.message == f"there is no model {name}"
    assert "pocket" in error.remedy


def test_an_empty_name_is_not_this_folder() -> None:
    """An empty name, for example from an unset shell variable, is refused; it does not mean the current folder."""
    assert refused("").message == "--model is given an empty name"


def test_the_error_says_offline() -> None:
    """If the Hub cannot be reached, the error for a possible Hub name says so, and that no such folder exists."""
    error = refused("models/llama@rev")
    assert "there is no folder models/llama@rev" in error.message
    assert "(offline)" in error.message
    assert "--model pocket" in error.remedy


def test_a_lost_connection_is_offline_too() -> None:
    """If the connection to the Hub breaks, the error says `offline`."""
    assert "(offline)" in refused(LLAMA, failing(ConnectionError("reset"))).message


@pytest.mark.parametrize("name", ["a/..", "ü/b", "a--b/c", "a/b.git", "-a/b"])
def test_names_that_the_hub_cannot_have(name: str) -> None:
    """If the Hub does not allow a name, the error says that there is no folder of this name."""
    assert refused(name).message.startswith(f"there is no folder {name}")


@pytest.mark.parametrize(
    ("kind", "message", "remedy"),
    [
        (hub.GatedRepoError, "is gated", f"https://huggingface.co/{LLAMA}"),
        (hub.RepositoryNotFoundError, "the Hub has no model", "hf auth login"),
        (hub.RevisionNotFoundError, "has no revision 'rev'", "after the @"),
        (hub.HfHubHTTPError, "could not be downloaded: 503", "Try again later"),
    ],
    ids=["gated", "missing", "revision", "broken"],
)
def test_the_hub_refuses(kind: type[hub.HfHubHTTPError], message: str, remedy: str) -> None:
    """For each reason why the Hub refuses a model, the error has its own message and remedy."""
    error = refused(f"{LLAMA}@rev", failing(kind("503", response=Mock())))
    assert message in error.message
    assert remedy in error.remedy


def test_a_full_disk_is_not_called_offline() -> None:
    """If the disk is full, the error says so, and does not say `offline`."""
    error = refused(LLAMA, failing(OSError(errno.ENOSPC, "No space left on device")))
    assert error.message.startswith("the disk is full")
    assert "harness clean" in error.remedy


# --- models that cannot be trained -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["TheBloke/Llama-2-7B-Chat-GGUF", "TheBloke/Llama-2-7B-Chat-GGML", "llama-2-7b.Q4_K_M.gguf", "x.ggmlv3.q4_0.bin"],
)
def test_ggml_is_refused_by_name(name: str) -> None:
    """A name with GGML or GGUF in it is refused without a request to the Hub, and the remedy gives another name."""
    error = refused(name, failing(AssertionError("the Hub was asked")))
    assert "cannot be fine-tuned" in error.message
    assert "meta-llama/Llama-2-7b-chat-hf instead of TheBloke" in error.remedy


@pytest.mark.parametrize("magic", [b"lmggxxxx", b"tjggxxxx"], ids=["ggml", "ggjt"])
def test_ggml_is_refused_by_content(tmp_path: Path, magic: bytes) -> None:
    """A GGML file is recognised by its first bytes, whatever its name is."""
    (tmp_path / "model.bin").write_bytes(magic)
    assert "llama.cpp" in refused(str(tmp_path / "model.bin")).message


def test_the_remedy_for_a_folder_of_gguf_files_names_one(tmp_path: Path) -> None:
    """If a folder without safetensors holds a GGUF file, the remedy is to name this file."""
    (tmp_path / "model.bin").write_bytes(GGUF)
    assert refused(str(tmp_path)).remedy == f"Name the file: --model {tmp_path / 'model.bin'}"


def test_a_file_that_is_only_called_gguf_is_refused(tmp_path: Path) -> None:
    """If a file is named like a GGUF file but has other content, the error says so."""
    (tmp_path / "model.gguf").write_bytes(b"<html>")
    assert "is not a GGUF file" in refused(str(tmp_path / "model.gguf")).message


@pytest.mark.parametrize(("file", "content"), [("model.bin", b"lmgg"), ("a.ggml", b"")], ids=["content", "name"])
def test_a_folder_of_ggml_is_refused(tmp_path: Path, file: str, content: bytes) -> None:
    """If a folder holds only GGML files, the error says that the model is for llama.cpp."""
    (tmp_path / file).write_bytes(content)
    assert "llama.cpp" in refused(str(tmp_path)).message


def test_a_file_is_not_a_model(model: Path) -> None:
    """If a file of weights is named instead of a folder, the remedy is to name its folder."""
    error = refused(str(model / "model.safetensors"))
    assert "is a file, and a base model is a folder" in error.message
    assert error.remedy.startswith("Name the folder")


def test_pickled_weights_are_refused(model: Path) -> None:
    """A folder with only pickled weights is refused, and the error says why and how to convert the weights."""
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    error = refused(str(model))
    assert "pickles can run code" in error.message
    assert "save_pretrained" in error.remedy


def test_no_weights_at_all(model: Path) -> None:
    """If a folder has no weights in any format, the error says that it has no weights."""
    (model / "model.safetensors").unlink()
    assert "holds no .safetensors file, so it has no weights" in refused(str(model)).message


def test_incomplete_weights(model: Path) -> None:
    """If a file is missing that the index of the weights lists, the error names the file."""
    shards = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}), encoding="utf-8")
    assert "lacks model-00002-of-00002.safetensors (1 of" in refused(str(model)).message
    shutil.copy(model / "model.safetensors", model / "model-00002-of-00002.safetensors")
    assert resolve(str(model)).name == "mine"


def test_code_of_its_own_is_refused(model: Path) -> None:
    """A model whose config.json refers to its own code is refused."""
    config = model / "config.json"
    described = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(described | {"auto_map": {"AutoModel": "x.Y"}}), encoding="utf-8")
    assert "its own code" in refused(str(model)).message


def test_a_quantised_checkpoint_is_refused(model: Path) -> None:
    """A model with quantised weights is refused, since it would be trained in 4-bit even with `quantization: none`."""
    config = model / "config.json"
    described = json.loads(config.read_text(encoding="utf-8"))
    described |= {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    config.write_text(json.dumps(described), encoding="utf-8")
    error = refused(str(model))
    assert "mine is quantised already" in error.message
    assert "made from" in error.remedy


def test_no_chat_template(model: Path) -> None:
    """If a tokenizer has no chat template, the remedy says what to name instead, or how to add a template."""
    without_template(model)
    error = refused(str(model))
    assert "mine has no chat template" in error.message
    assert "-Instruct" in error.remedy
    assert "chat_template.jinja" in error.remedy
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["chat_template"] = [{"name": "default", "template": "{{ messages }}"}]
    (model / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert resolve(str(model)).name == "mine"


def test_no_tokenizer(model: Path) -> None:
    """If a model's folder has no tokenizer, the remedy says how to save one there."""
    for path in model.glob("tokenizer*"):
        path.unlink()
    error = refused(str(model))
    assert "holds no tokenizer" in error.message
    assert "AutoTokenizer" in error.remedy


DAMAGED = {
    "cut": b"{", "bytes": b"\xff\xfe", "list": b"[]", "3": b"3", "empty": b"", "deep": b"[" * 100_000,
    "long number": b'{"model_type": "llama", "x": ' + b"9" * 6000 + b"}", "type": b'{"model_type": ["x"]}',
}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_config(model: Path, content: bytes) -> None:
    """If config.json is no JSON object with a model type, the error gives its path and says that it is damaged."""
    (model / "config.json").write_bytes(content)
    assert f"{model / 'config.json'} is damaged" in refused(str(model)).message
    with pytest.raises(ModelError, match="is damaged"):
        check_name(str(model))


@pytest.mark.parametrize("shards", [{"a": ["x"]}, {"a": 1, "b": "x"}], ids=["list", "number"])
def test_a_damaged_index(model: Path, shards: dict[str, Any]) -> None:
    """If the index of the weights has other values than names of files, the error says that it is damaged."""
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}), encoding="utf-8")
    assert "model.safetensors.index.json is damaged" in refused(str(model)).message


def test_a_damaged_chat_template(model: Path) -> None:
    """If the chat template is not UTF-8, the error gives its path and says that it is damaged."""
    (model / "chat_template.jinja").write_bytes(b"\xff\xfe {{ messages }}")
    assert "chat_template.jinja is damaged" in refused(str(model)).message


def test_a_deep_tokenizer_config(model: Path) -> None:
    """A tokenizer_config.json that is nested too deeply is damaged, and there is no traceback."""
    without_template(model)
    (model / "tokenizer_config.json").write_bytes(b"[" * 100_000)
    assert "tokenizer_config.json is damaged" in refused(str(model)).message


def test_a_folder_that_is_named_like_a_file_is_ignored(model: Path) -> None:
    """A subfolder whose name ends in .json has no effect on the model."""
    before = resolve(str(model))
    (model / "extra.json").mkdir()
    assert resolve(str(model)) == before


def test_an_adapter_is_not_a_base_model(model: Path) -> None:
    """If an adapter's folder is named, the remedy is to name the base model on which the adapter was trained."""
    (model / "config.json").rename(model / "adapter_config.json")
    error = refused(str(model))
    assert "is an adapter" in error.message
    assert "base model" in error.remedy


def test_an_empty_folder(tmp_path: Path) -> None:
    """If a folder has no config.json, the remedy says which files the folder of a model has."""
    error = refused(str(tmp_path))
    assert "holds no config.json" in error.message
    assert "tokenizer" in error.remedy
