"""A base model's name, as a person writes it, to its files on this machine.

`pocket` is the model that ships with the harness; a path is a folder as `save_pretrained` writes it; anything else is a
model of the Hugging Face Hub, fetched by its own client into its own cache. Nothing here imports torch.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from harness.errors import ModelError
from harness.records import ModelRef
from harness.store import digest, file_digest

POCKET = Path(__file__).parent / "pocket" / "model"
POCKET_NOTE = "Toy model (7M parameters). Shows how to read a report. Do not copy these settings to another model."
_WANTED = ["*.safetensors", "*.json", "*.model", "*.jinja", "*.txt"]
_DETERMINES = ("*.safetensors", "*.json", "*.model", "*.jinja", "merges.txt", "vocab.txt")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")
_GGML_MAGIC = (b"GGUF", b"ggml", b"lmgg", b"ggjt", b"tjgg")


def resolve(name: str) -> ModelRef:
    """Find the model called `name`: `pocket`, a folder, or `owner/name[@revision]` of the Hub.

    Raises:
        ModelError: it is not there, cannot be fetched, or is a file that cannot be trained (GGML, GGUF, pickles).
    """
    if name == "pocket":
        return _local("pocket", POCKET, toy=True, note=POCKET_NOTE)
    _refuse_ggml(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _local(path.resolve().name, path.resolve())
    if path.is_file():
        remedy = "Name the folder that holds config.json, the tokenizer and the .safetensors files."
        raise ModelError(f"--model {name} is a file, and a base model is a folder", remedy=remedy)
    if _HUB_NAME.fullmatch(name) and not name.startswith((".", "/")):
        return _from_hub(name)
    remedy = "Name `pocket`, a folder with config.json and .safetensors files, or a Hub model such as owner/name."
    raise ModelError(f"there is no model {name!r}", remedy=remedy)


def _refuse_ggml(name: str) -> None:
    """A GGML or GGUF file is llama.cpp's; it cannot be trained. Naming one once cost a whole workshop an afternoon."""
    path = Path(name).expanduser()
    looks = bool(re.search(r"(?i)(gguf|ggml)", Path(name).name)) or _is_ggml(path)
    if path.is_dir() and not looks:
        looks = not any(path.glob("*.safetensors")) and any(map(_is_ggml, path.iterdir()))
    if looks:
        remedy = (
            "Name the model that it was made from: its folder with config.json and .safetensors files, or its Hub "
            "name, for example meta-llama/Llama-2-7b-chat-hf instead of TheBloke/Llama-2-7B-Chat-GGUF."
        )
        raise ModelError(f"--model {name} is a GGML/GGUF model for llama.cpp and cannot be fine-tuned", remedy=remedy)


def _is_ggml(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in _GGML_MAGIC


def _local(name: str, path: Path, *, revision: str = "", toy: bool = False, note: str = "") -> ModelRef:
    _check_folder(name, path)
    files = sorted({p for pattern in _DETERMINES for p in path.glob(pattern) if p.name != "training.json"})
    content = digest({p.name: file_digest(p) for p in files})
    return ModelRef(name, str(path), content, revision, toy=toy, note=note)


def _check_folder(name: str, path: Path) -> None:
    config = path / "config.json"
    if not config.is_file():
        remedy = "A base model's folder holds config.json, the tokenizer and .safetensors files."
        raise ModelError(f"{path} holds no config.json, so it is no model", remedy=remedy)
    try:
        described = json.loads(config.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{config} is damaged: {error}", remedy="Fetch the model again.") from None
    if "auto_map" in described:
        remedy = "Use a model whose architecture transformers has built in."
        raise ModelError(f"{name} wants to run code of its own (auto_map), and that is off", remedy=remedy)
    if not any(path.glob("*.safetensors")):
        remedy = "Convert it once: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...) writes safetensors."
        raise ModelError(f"{path} holds no .safetensors file; pickled weights are not loaded", remedy=remedy)
    if not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{path} holds no tokenizer", remedy="Save the model's tokenizer into the same folder.")


def _from_hub(name: str) -> ModelRef:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = name.partition("@")
    try:
        path = Path(snapshot_download(repository, revision=revision or None, allow_patterns=_WANTED))
    except GatedRepoError:
        remedy = (
            f"Open https://huggingface.co/{repository}, accept its licence, make a token at "
            "https://huggingface.co/settings/tokens, then run: hf auth login"
        )
        raise ModelError(f"{repository} is gated: its licence must be accepted first", remedy=remedy) from None
    except RevisionNotFoundError:
        raise ModelError(f"{repository} has no revision {revision!r}", remedy="Check the name behind the @.") from None
    except RepositoryNotFoundError:
        remedy = "Check the spelling; a private model needs `hf auth login` first."
        raise ModelError(f"the Hub has no model {repository!r}", remedy=remedy) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, RuntimeError) as error:
        remedy = "Check the connection, name a folder instead, or use --model pocket, which needs no network."
        reason = f"{repository} is not on this machine and the Hub cannot be reached (offline)"
        raise ModelError(reason, remedy=remedy) from error
    return _local(repository, path, revision=path.name)
