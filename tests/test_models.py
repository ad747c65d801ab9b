"""From a base model's name to its files: what is found, and in which words everything else is refused."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import Mock

import pytest
from huggingface_hub import errors as hub

from harness.errors import ModelError
from harness.hub import Hub, Listing
from harness.models import POCKET, resolve

GGUF = b"GGUF\x03\x00\x00\x00"
LLAMA = "meta-llama/Llama-2-7b-chat-hf"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder, small: its weights are not looked into."""
    folder = tmp_path / "mine"
    shutil.copytree(POCKET, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@dataclass
class Fake:
    """A Hub with one model, which lies in `folder` and is called by its commit; `error` is what it answers instead."""

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

    def kept(self, repository: str, revision: str | None) -> Path | None:
        return None

    def room(self) -> int:
        return self.free


def refused(name: str, hub: Hub | None = None) -> ModelError:
    """The error that `name` is answered with; it always says what to do."""
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
    """A Hub that answers every request with this error."""
    return Fake(Path(), error)


# --- what is found -----------------------------------------------------------------------------------------------


def test_pocket_is_a_name_for_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pocket` is the toy model wherever one stands, even beside a folder of that name."""
    (tmp_path / "pocket").mkdir()
    monkeypatch.chdir(tmp_path)
    found = resolve("pocket")
    assert (found.name, found.path, found.toy) == ("pocket", str(POCKET), True)


def test_a_folder_is_a_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is found by any of its names, is called by its last, and is no toy."""
    monkeypatch.chdir(model.parent)
    monkeypatch.setenv("HOME", str(model.parent))
    names = (str(model), "mine", "./mine", "mine/", "mine/../mine", "~/mine")
    assert {(found.name, found.path, found.toy) for found in map(resolve, names)} == {("mine", str(model), False)}


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.model", "chat_template.jinja"])
def test_the_digest_is_that_of_what_decides_answers(model: Path, file: str) -> None:
    """A changed byte in weights, config, tokenizer or chat template is another model."""
    before = resolve(str(model)).digest
    with (model / file).open("ab") as changed:
        changed.write(b" ")
    assert resolve(str(model)).digest != before


def test_the_digest_is_not_that_of_prose(model: Path) -> None:
    """A model's card and place do not make it another model."""
    before = resolve(str(model)).digest
    (model / "README.md").write_text("more", encoding="utf-8")
    moved = model.rename(model.with_name("moved"))
    assert resolve(str(moved)).digest == before


def test_a_model_of_the_hub_is_fetched(model: Path) -> None:
    """`owner/name@revision` is asked of the Hub, small files first, and what came is named by the commit that it is."""
    for name in ("model.bin", "model.gguf", "setup.py", "consolidated.safetensors", "onnx/model.onnx", "README.md"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"not wanted")
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
    """What is wrong with configuration or tokenizer is said before the weights are asked for."""
    without_template(model)
    hub = Fake(model)
    assert "has no chat template" in refused(LLAMA, hub).message
    assert [files for _, _, files in hub.asked if "model.safetensors" in files] == []


def test_a_model_that_has_no_room_is_not_fetched(model: Path) -> None:
    """The disk is looked at before gigabytes are fetched, and the error says how many and where."""
    hub = Fake(model, sizes={"model.safetensors": 13_500_000_000}, free=12_000_000_000)
    error = refused(LLAMA, hub)
    assert "takes 13.5 GB, and 12.0 GB are free" in error.message
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
    """What is no base in safetensors is told from the list of its files: nothing of it is fetched."""
    (model / "model.safetensors").unlink()
    for name in files:
        (model / name).write_bytes(b"x")
    hub = Fake(model)
    assert message in refused(LLAMA, hub).message
    assert hub.asked == []


def test_a_model_that_changes_meanwhile_is_not_taken(model: Path) -> None:
    """A branch that moved between being listed and being fetched is refused: what was checked is not what came."""
    hub = Fake(model)
    other = model.with_name("other")
    shutil.copytree(model, other)
    hub.fetch = lambda repository, revision, files: other  # type: ignore[method-assign]
    assert "changed on the Hub while it was fetched" in refused(LLAMA, hub).message


def test_a_folder_called_gguf_may_hold_a_model(model: Path) -> None:
    """What a folder is called says nothing: one with safetensors can be trained, whatever else lies in it."""
    (model / "also.gguf").write_bytes(GGUF)
    renamed = model.rename(model.with_name("before-gguf"))
    assert resolve(str(renamed)).name == "before-gguf"


# --- what is not there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["./models/x", "/models/x", "models/x/y", "~/nothing", "C:\\models\\x", "../x"])
def test_a_path_that_is_not_there(name: str) -> None:
    """A name that can only be a path is answered with: there is no such folder."""
    assert refused(name).message == f"there is no folder {name}"


@pytest.mark.parametrize("name", ["pockett", "@", "a b"])
def test_a_name_that_is_none(name: str) -> None:
    """A name that is neither a path nor of the Hub is answered with what can be named."""
    error = refused(name)
    assert error.message == f"there is no model {name}"
    assert "pocket" in error.remedy


def test_an_empty_name_is_not_this_folder() -> None:
    """An empty name, as an unset variable gives, does not mean the current folder."""
    assert refused("").message == "--model is given an empty name"


def test_offline_is_said() -> None:
    """What could be a folder or a model of the Hub says, without a network, that it is neither here nor reachable."""
    error = refused("models/llama@rev")
    assert "models/llama@rev is no folder here" in error.message
    assert "(offline)" in error.message
    assert "--model pocket" in error.remedy


def test_a_lost_connection_is_offline_too() -> None:
    """A connection that breaks reads as offline, not as a bug."""
    assert "(offline)" in refused(LLAMA, failing(ConnectionError("reset"))).message


@pytest.mark.parametrize("name", ["a/..", "ü/b", "a--b/c", "a/b.git", "-a/b"])
def test_names_that_the_hub_cannot_have(name: str) -> None:
    """A name against the Hub's rules is a mistake in a name, not a bug."""
    assert refused(name).message.startswith(f"there is no folder {name}")


@pytest.mark.parametrize(
    ("kind", "message", "remedy"),
    [
        (hub.GatedRepoError, "is gated", f"https://huggingface.co/{LLAMA}"),
        (hub.RepositoryNotFoundError, "the Hub has no model", "hf auth login"),
        (hub.RevisionNotFoundError, "has no revision 'rev'", "behind the @"),
        (hub.HfHubHTTPError, "could not be fetched: 503", "Try again later"),
    ],
    ids=["gated", "missing", "revision", "broken"],
)
def test_the_hub_refuses(kind: type[hub.HfHubHTTPError], message: str, remedy: str) -> None:
    """What the Hub answers is said with what to do about it."""
    error = refused(f"{LLAMA}@rev", failing(kind("503", response=Mock())))
    assert message in error.message
    assert remedy in error.remedy


def test_a_full_disk_is_not_called_offline() -> None:
    """A model for which there is no room says so."""
    error = refused(LLAMA, failing(OSError(errno.ENOSPC, "No space left on device")))
    assert error.message.startswith("the disk is full")
    assert "harness clean" in error.remedy


# --- what cannot be trained --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["TheBloke/Llama-2-7B-Chat-GGUF", "TheBloke/Llama-2-7B-Chat-GGML", "llama-2-7b.Q4_K_M.gguf", "x.ggmlv3.q4_0.bin"],
)
def test_ggml_is_refused_by_name(name: str) -> None:
    """What is called GGML or GGUF is refused before it is looked for, and the model to name instead is named."""
    error = refused(name, failing(AssertionError("the Hub was asked")))
    assert "cannot be fine-tuned" in error.message
    assert "meta-llama/Llama-2-7b-chat-hf instead of TheBloke" in error.remedy


@pytest.mark.parametrize("magic", [GGUF, b"lmggxxxx", b"tjggxxxx"], ids=["gguf", "ggml", "ggjt"])
def test_ggml_is_refused_by_content(tmp_path: Path, magic: bytes) -> None:
    """A file of llama.cpp is known by its first bytes, whatever it is called."""
    (tmp_path / "model.bin").write_bytes(magic)
    assert "llama.cpp" in refused(str(tmp_path / "model.bin")).message


@pytest.mark.parametrize(("file", "content"), [("model.bin", GGUF), ("model.gguf", b"")], ids=["content", "name"])
def test_a_folder_of_ggml_is_refused(tmp_path: Path, file: str, content: bytes) -> None:
    """A folder that holds only a model of llama.cpp is refused as that, not for its missing config."""
    (tmp_path / file).write_bytes(content)
    assert "llama.cpp" in refused(str(tmp_path)).message


def test_a_file_is_no_model(model: Path) -> None:
    """The weights' file, named instead of its folder, is answered with: name the folder."""
    error = refused(str(model / "model.safetensors"))
    assert "is a file, and a base model is a folder" in error.message
    assert error.remedy.startswith("Name the folder")


def test_pickled_weights_are_refused(model: Path) -> None:
    """A folder with pickled weights only is refused, with the reason and how to convert them."""
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    error = refused(str(model))
    assert "pickles can run code" in error.message
    assert "save_pretrained" in error.remedy


def test_no_weights_at_all(model: Path) -> None:
    """A folder without any weights does not speak of pickles."""
    (model / "model.safetensors").unlink()
    assert "holds no .safetensors file, so no weights" in refused(str(model)).message


def test_half_of_the_weights(model: Path) -> None:
    """A file that the index of spread weights lists and that is not there is named, before anything is trained."""
    shards = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}), encoding="utf-8")
    assert "lacks model-00002-of-00002.safetensors (1 of" in refused(str(model)).message
    (model / "model-00002-of-00002.safetensors").write_bytes(b"weights")
    assert resolve(str(model)).name == "mine"


def test_code_of_its_own_is_refused(model: Path) -> None:
    """A config that points at code to run is refused."""
    config = model / "config.json"
    described = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(described | {"auto_map": {"AutoModel": "x.Y"}}), encoding="utf-8")
    assert "code of its own" in refused(str(model)).message


def test_a_quantised_checkpoint_is_refused(model: Path) -> None:
    """It would stay as it is whatever a grid asks for: `quantization: none` would be 4-bit."""
    config = model / "config.json"
    described = json.loads(config.read_text(encoding="utf-8"))
    described |= {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    config.write_text(json.dumps(described), encoding="utf-8")
    error = refused(str(model))
    assert "mine is quantised already" in error.message
    assert "made from" in error.remedy


def test_no_chat_template(model: Path) -> None:
    """A tokenizer without a chat template says which model to name instead, or how to add one."""
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
    """A folder without a tokenizer says how to save one there."""
    for path in model.glob("tokenizer*"):
        path.unlink()
    error = refused(str(model))
    assert "holds no tokenizer" in error.message
    assert "AutoTokenizer" in error.remedy


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"3", b""], ids=["cut", "bytes", "list", "3", "empty"])
def test_a_damaged_config(model: Path, content: bytes) -> None:
    """A config.json that holds no JSON object is damaged, and its path is named."""
    (model / "config.json").write_bytes(content)
    assert f"{model / 'config.json'} is damaged" in refused(str(model)).message


def test_an_adapter_is_no_base(model: Path) -> None:
    """An adapter's folder is answered with: name the base that it was trained on."""
    (model / "config.json").rename(model / "adapter_config.json")
    error = refused(str(model))
    assert "is an adapter" in error.message
    assert "base model" in error.remedy


def test_an_empty_folder(tmp_path: Path) -> None:
    """A folder without config.json says what a model's folder holds."""
    error = refused(str(tmp_path))
    assert "holds no config.json" in error.message
    assert "tokenizer" in error.remedy
