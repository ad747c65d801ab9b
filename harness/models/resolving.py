"""Find the files of a base model by its name (`--model`), without importing torch.

`pocket` is the toy model in this package, `smollm2` a small model in another Python package. `shape:NAME` stands for
random weights in the shape of a known model. A path names a folder that `save_pretrained` wrote, or a GGUF file, which
is converted into the harness's cache. Any other name is a model on the Hugging Face Hub, which the Hub's client
downloads into its own cache.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from harness.core.errors import ModelError
from harness.core.hashing import digest, file_digest
from harness.core.model import ModelRef
from harness.models import POCKET as POCKET
from harness.models import gguf, smollm2
from harness.models import hub as hub_module
from harness.models.foreign_files import check_folder, damaged, read_object, tensor_shapes
from harness.models.gguf_bases import Conversions, check_header, note_of, weights_words
from harness.models.hub import Hub, HuggingFace
from harness.models.peculiarities import peculiarities
from harness.models.tokenizer_files import chat_template
from harness.storage.manifest import verify_manifest

POCKET_NOTE = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."
SHAPES = Path(__file__).parent / "shapes"
SHAPE_NOTE = (
    "Random weights in the shape of {name}. Shows whether a training fits and how long it takes; answers mean nothing."
)
_SHAPE = "shape:"
_SHAPE_RECIPE = 1
"""Version of the code that makes the random weights. Increase it if the code then makes different weights."""
_DIGESTED = ("*.safetensors", "*.json", "*.model", "*.jinja", "merges.txt", "vocab.txt")
"""The files that determine a model's answers. The model's digest is computed from them."""
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")
_SIZES = (
    *("num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size", "num_attention_heads"),
    "num_key_value_heads",
)
_WHAT_A_FOLDER_HOLDS = "Name a folder that holds config.json, the tokenizer and .safetensors files."
TRAINED = "`pocket`, `smollm2`, a folder with config.json and .safetensors files, a .gguf file"
"""The names of models with trained weights, of which a Hub model such as owner/name is one more."""
WHAT_TO_NAME = (
    f"Name {TRAINED}, a Hub model such as owner/name, or a shape to fill with random weights, such as shape:llama-2-7b."
)
_GGML_MAGIC = (b"ggml", b"lmgg", b"ggjt", b"tjgg", b"fmgg", b"algg")
"""First bytes of files in the formats of llama.cpp before GGUF (GGML, GGMF, GGJT, GGLA), as written and reversed."""


@dataclass(frozen=True)
class Description:
    """What is known of a model without its weights. Predictions need it."""

    config: Mapping[str, Any]
    """The content of config.json."""
    tokenizer: Path | None
    """The folder with the tokenizer; None for a GGUF file that has not been converted yet."""
    remarks: tuple[str, ...] = ()
    """Sentences about the model that users must know."""


def find_description(name: str, *, hub: Hub | None = None, conversions: Conversions | None = None) -> Description:
    """Find a model's configuration and tokenizer. Weights are not downloaded, read or converted.

    Raises:
        ModelError: there is no such model, or it cannot be trained.
    """
    if name.startswith(_SHAPE):
        shape = _shape(name, SHAPES)
        return Description(read_object(Path(shape.path) / "config.json"), Path(shape.tokenizer), (shape.note,))
    conversions = conversions or Conversions()
    if name == smollm2.NAME:
        return _description_of_smollm2(conversions)
    if file := _gguf_file(name):
        header = gguf.read_header(file)
        check_header(name, header)
        remarks = (*_remarks(weights_words(header), note_of(header)), *peculiarities(header.config))
        folder = conversions.existing(file_digest(file))
        config = read_object(folder / "config.json") if folder else header.config
        return Description(config, folder, remarks)
    folder = _description_folder(name, hub or HuggingFace())
    _check_description(name, folder)
    config = read_object(folder / "config.json")
    return Description(config, folder, tuple(peculiarities(config)))


def _description_of_smollm2(conversions: Conversions) -> Description:
    folder = conversions.existing(conversions.smollm2_file)
    config = (folder or SHAPES / smollm2.SHAPE) / "config.json"
    return Description(read_object(config), folder, _remarks(smollm2.WEIGHTS, smollm2.NOTE))


def remarks(name: str) -> tuple[str, ...]:
    """Return what users must know about the model with this name; nothing if the model cannot be found."""
    try:
        return find_description(name).remarks
    except ModelError:
        return ()


def _remarks(weights: str, note: str = "") -> tuple[str, ...]:
    return tuple(filter(None, (note, f"Weights: {weights}." if weights else "")))


def check_name(name: str) -> None:
    """Check a model's name as far as possible without a request to the Hub.

    Raises:
        ModelError: no model can have this name, or the folder or file with this name is not a model that can be
            trained.
    """
    if name.startswith(_SHAPE):
        _shape(name, SHAPES)
    elif name == smollm2.NAME:
        return
    elif file := _gguf_file(name):
        check_header(name, gguf.read_header(file))
    elif folder := _folder(name):
        _check_description(name, folder)


def _gguf_file(name: str) -> Path | None:
    """Return the path of the GGUF file that a name denotes, or None."""
    try:
        path = Path(name).expanduser()
        return path if gguf.is_gguf(path) else None
    except (OSError, RuntimeError):  # `_folder` explains such a name
        return None


def _description_folder(name: str, hub: Hub) -> Path:
    return _folder(name) or hub_module.download_description(name, hub)


def _folder(name: str) -> Path | None:
    """Return the folder of a model on this machine, or None if the name can be a model on the Hub.

    Raises:
        ModelError: the name is neither a folder nor a possible name on the Hub.
    """
    if name == "pocket":
        return POCKET
    if not name.strip():  # `Path` would take an empty name for the current folder
        raise ModelError("--model is given an empty name", remedy=WHAT_TO_NAME)
    try:
        path = Path(name).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, ValueError):
            path.stat()  # from Python 3.14 on, is_dir and is_file hide all errors, such as a name that is too long
        _refuse_ggml(name, path)
        if path.is_dir():
            return path.resolve()
        is_file = path.is_file()
    except (OSError, RuntimeError) as error:  # such as a name of 300 letters, or the home folder of an unknown user
        why = getattr(error, "strerror", None) or error
        raise ModelError(f"{name} cannot be the name of a model: {why}", remedy=WHAT_TO_NAME) from None
    if is_file:
        remedy = "Name the folder that holds config.json, the tokenizer and the .safetensors files."
        raise ModelError(f"--model {name} is a file, and a base model is a folder", remedy=remedy)
    if _HUB_NAME.fullmatch(name) and not name.startswith("."):
        return None
    is_path = "/" in name or "\\" in name
    missing = f"there is no folder {name}" if is_path else f"there is no model {name}"
    raise ModelError(missing, remedy=WHAT_TO_NAME)


def shape_in(name: str) -> str | None:
    """Return `shape:NAME` for the known shape NAME in a model's name, such as llama-2-7b; None if there is none."""
    return next((f"{_SHAPE}{known}" for known in _known(SHAPES) if known in name.lower()), None)


def _known(shapes: Path) -> list[str]:
    return sorted(path.parent.name for path in shapes.glob("*/config.json"))


def resolve(
    name: str, *, hub: Hub | None = None, shapes: Path = SHAPES, conversions: Conversions | None = None
) -> ModelRef:
    """Find a model by name: `pocket`, `smollm2`, `shape:NAME`, a folder, a GGUF file, or `owner/name[@revision]`.

    `hub` replaces the client of the Hub; `shapes` replaces the folder of known configurations; `conversions` replaces
    the models made of GGUF files in the default cache.

    Raises:
        ModelError: there is no such model, it cannot be downloaded, or it cannot be trained (GGML, pickles).
        StoreError: the disk has too little space for the weights of a GGUF file.
    """
    if name == "pocket":
        return _local("pocket", POCKET, toy=True, note=POCKET_NOTE)
    if name.startswith(_SHAPE):
        return _shape(name, shapes)
    if name == smollm2.NAME:
        return (conversions or Conversions()).smollm2()
    if file := _gguf_file(name):
        return (conversions or Conversions()).of_file(file)
    if folder := _folder(name):
        return _local(folder.name, folder)
    repository, folder_of_commit = hub_module.download(name, hub or HuggingFace(), partial(_check_description, name))
    return _local(repository, folder_of_commit, revision=folder_of_commit.name)


def _shape(name: str, shapes: Path) -> ModelRef:
    """Return a known configuration with random weights and the pocket model's tokenizer and chat template.

    The pocket model's tokenizer needs no other licence, and its vocabulary is smaller than that of every known shape.
    Memory and time depend on the number of tokens, not on which tokens they are.
    """
    shape, known = name.removeprefix(_SHAPE), _known(shapes)
    if shape not in known:
        remedy = f"Known shapes: {', '.join(_SHAPE + known_name for known_name in known)}."
        raise ModelError(f"there is no shape {shape!r}", remedy=remedy)
    config = shapes / shape / "config.json"
    tokens = digest({p.name: file_digest(p) for p in sorted(POCKET.glob("*token*.json"))})
    content = digest({"config": file_digest(config), "tokenizer": tokens, "recipe": _SHAPE_RECIPE})
    note = SHAPE_NOTE.format(name=shape)
    return ModelRef(name, str(config.parent), content, note=note, shape_only=True, tokenizer=str(POCKET))


def check_same(ref: ModelRef) -> None:
    """Check that the files of a base model have not changed since `ref` was created.

    Raises:
        ModelError: the files are missing, damaged or different.
        StoreError: a file of a model that was made of a GGUF file is missing or has changed.
    """
    path = Path(ref.path)
    if not path.is_dir():
        remedy = f"Put {ref.name} back there, or run the benchmark again and name its new folder with --model."
        if ref.weights:
            remedy = (
                "Run the same `harness run` again: it converts the GGUF file again and trains only what is missing."
            )
        raise ModelError(f"the base model {ref.name} is no longer in {path}", remedy=remedy)
    if ref.weights:
        verify_manifest(path)
    elif _local(ref.name, path).digest != ref.digest:
        remedy = "Restore the files, or run the benchmark again with the changed model."
        raise ModelError(f"the files in {path} have changed since the run", remedy=remedy)


def _refuse_ggml(name: str, path: Path) -> None:
    """Raise `ModelError` for GGML files, and for names of GGUF models that name no file.

    Naming such a file for --model cost the participants of a workshop an afternoon.
    """
    if path.is_dir():  # the files of a folder decide, not its name
        files = [] if any(path.glob("*.safetensors")) else sorted(path.iterdir())
        if found := next(filter(gguf.is_gguf, files), None):
            raise ModelError(f"--model {name} is a folder with GGUF files", remedy=f"Name the file: --model {found}")
        refused = any(map(_is_ggml, files))
    elif path.suffix.lower() == ".gguf" and path.is_file():
        remedy = "Download or copy the file again."
        raise ModelError(f"{name} is not a GGUF file, though it is named like one", remedy=remedy)
    else:
        refused = bool(re.search(r"(?i)(gguf|ggml)", path.name)) or _is_ggml(path)
    if refused:
        raise _ggml(name, path)


def _ggml(name: str, path: Path) -> ModelError:
    remedy = (
        "Name the model that it was made from: its folder with config.json and .safetensors files, or its Hub name, "
        "for example meta-llama/Llama-2-7b-chat-hf instead of TheBloke/Llama-2-7B-Chat-GGUF. You can also name a .gguf "
        "file that you downloaded."
    )
    if path.exists():
        what = f"--model {name} is a GGML model for old versions of llama.cpp, and cannot be fine-tuned"
        return ModelError(what, remedy=remedy)
    what = f"there is no file {name}, and models of the Hub for llama.cpp (GGML, GGUF) cannot be fine-tuned"
    return ModelError(what, remedy=remedy)


def _is_ggml(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in _GGML_MAGIC or path.suffix.lower() == ".ggml"


def _local(name: str, path: Path, *, revision: str = "", toy: bool = False, note: str = "") -> ModelRef:
    _check_folder(name, path)
    found = {p for pattern in _DIGESTED for p in path.glob(pattern) if p.name != "training.json"}
    files = sorted(p for p in found if p.is_file())
    content = digest({p.name: file_digest(p) for p in files})
    note = note or " ".join(peculiarities(read_object(path / "config.json")))
    return ModelRef(name, str(path), content, revision, toy=toy, note=note)


def _check_description(name: str, path: Path) -> None:
    """Check the configuration and the tokenizer, but not the weights."""
    check_folder(path)
    _check_config(name, path)
    _check_tokenizer(name, path)


def _check_folder(name: str, path: Path) -> None:
    check_folder(path)
    _check_config(name, path)
    weights = sorted(file.name for file in path.glob("*.safetensors"))
    if not weights:
        raise _no_weights(path)
    missing = sorted(_listed(path / "model.safetensors.index.json") - set(weights))
    if missing:
        what = f"{path} lacks {missing[0]} ({len(missing)} of its files are missing)"
        raise ModelError(what, remedy="Download or copy the complete model again.")
    _check_sizes(path, weights)
    _check_tokenizer(name, path)


def _check_sizes(path: Path, weights: Sequence[str]) -> None:
    """Check the weights' headers, and that config.json does not describe a larger model than they hold.

    transformers would fill main memory with random values for the missing weights, or take hours to make the layers.
    """
    shapes = [shape for file in weights for shape in tensor_shapes(path / file).values()]
    config = read_object(path / "config.json")
    text = config.get("text_config")
    elements = sum(map(prod, shapes))
    for part in (config, text if isinstance(text, dict) else {}):
        for setting in _SIZES:
            most = len(shapes) if setting == "num_hidden_layers" else elements
            value = part.get(setting)
            if value is not None and not (type(value) is int and 0 < value <= most):
                what = f"{setting} is {value!r}, and the weights have {len(shapes):,} tensors with {elements:,} values"
                raise damaged(path / "config.json", what)


def _check_tokenizer(name: str, path: Path) -> None:
    if not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        remedy = "Save it into the same folder: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)."
        raise ModelError(f"{path} holds no tokenizer", remedy=remedy)
    if chat_template(path) is None:
        remedy = (
            "Name the chat version of the model (often NAME-chat, NAME-Instruct or NAME-it). To train this model, "
            "copy its folder and add a chat_template.jinja to the copy, for example that of another chat model."
        )
        raise ModelError(f"{name} has no chat template, so prompts cannot be rendered", remedy=remedy)


def _no_weights(path: Path) -> ModelError:
    if not any(any(path.glob(pattern)) for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt")):
        return ModelError(f"{path} holds no .safetensors file, so it has no weights", remedy=_WHAT_A_FOLDER_HOLDS)
    what = f"{path} holds no .safetensors file; its pickled weights are not loaded, because pickles can run code"
    remedy = "If you trust them, convert them: AutoModelForCausalLM.from_pretrained(...).save_pretrained(NEW_FOLDER)."
    return ModelError(what, remedy=remedy)


def _check_config(name: str, path: Path) -> None:
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            remedy = "Name the base model on which it was trained; the harness trains its own adapters."
            raise ModelError(f"{path} is an adapter, not a base model", remedy=remedy)
        raise ModelError(f"{path} holds no config.json, so it is not a model", remedy=_WHAT_A_FOLDER_HOLDS)
    config = read_object(path / "config.json")
    if config.get("quantization_config"):
        remedy = "Name the model that it was made from. The harness quantises it if the grid's quantization is nf4."
        raise ModelError(f"{name} is quantised already", remedy=remedy)
    if "auto_map" in config:
        remedy = "Use a model whose architecture transformers includes (its card does not ask for trust_remote_code)."
        raise ModelError(
            f"{name} needs its own code (auto_map in config.json), which the harness does not run", remedy=remedy
        )
    if not isinstance(config.get("model_type"), str):
        raise damaged(path / "config.json", f"model_type is {config.get('model_type')!r}, not a text")


def _listed(index: Path) -> set[str]:
    """Return the names of the files in an index of sharded weights; empty if there is no index."""
    shards = read_object(index).get("weight_map") if index.is_file() else None
    if not isinstance(shards, dict):
        return set()
    if other := next((file for file in shards.values() if not isinstance(file, str)), None):
        raise damaged(index, f"{other!r} is not the name of a file")
    return set(shards.values())
