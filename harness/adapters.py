"""An adapter that was trained elsewhere: found, checked as far as that goes without torch, and named by its content."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from harness.core.names import BASE
from harness.errors import ModelError, UsageError
from harness.records import AdapterRef, ModelRef
from harness.store import digest, file_digest

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LARGEST = 1 << 20
"""Bytes of a configuration; PEFT's have a thousand."""
_CHANGING = ("modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters")
"""What replaces parts of the base, which then could not be given back for the next adapter."""
_PLAIN_START = (True, False, "gaussian", "orthogonal", None)
"""Ways to begin that leave the base's weights alone; PiSSA and its kin do not."""
_WHAT_IT_IS = f"An adapter's folder holds {CONFIG} and {WEIGHTS}, as PEFT's save_pretrained writes them."


def find(folders: Sequence[Path], model: ModelRef, taken: Collection[str] = ()) -> tuple[AdapterRef, ...]:
    """The adapters in these folders, each called as its folder is; `taken` are names that others have.

    Raises:
        UsageError: two of them, or one and a variant, have the same name.
        ModelError: a folder holds no LoRA adapter, one of another base, or one whose weights are pickled.
    """
    found: list[AdapterRef] = []
    for folder in folders:
        one = _read(folder, model)
        if one.name in {*taken, BASE, *(other.name for other in found)}:
            remedy = "Rename its folder, or name it once: a report calls an adapter as its folder is called."
            raise UsageError(f"--adapter {folder}: there is already a variant called {one.name!r}", remedy=remedy)
        found.append(one)
    return tuple(found)


def copy(adapter: AdapterRef, folder: Path) -> None:
    """What is judged is what was found: its two files, and nothing else that lies beside them.

    Raises:
        ModelError: they have changed since.
    """
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(Path(adapter.path) / name, folder / name)
    if _content(folder) != adapter.digest:
        raise ModelError(f"--adapter {adapter.path} was changed meanwhile", remedy="Run the same command again.")


def _read(folder: Path, model: ModelRef) -> AdapterRef:
    place = folder.expanduser().resolve()
    if not place.is_dir():
        raise ModelError(f"--adapter {folder}: there is no such folder", remedy=_WHAT_IT_IS)
    config = _config(folder, place)
    shapes = _shapes(folder, place)
    base = str(config.get("base_model_name_or_path") or "")
    _check_base(folder, base, model)
    targets = config.get("target_modules") or ()
    return AdapterRef(
        name=place.name,
        path=str(place),
        digest=_content(place),
        base=base,
        rank=int(config.get("r") or 0),
        target_modules=(targets,) if isinstance(targets, str) else tuple(sorted(map(str, targets))),
        trainable_parameters=sum(shapes),
    )


def _content(folder: Path) -> str:
    return digest([file_digest(folder / name) for name in (CONFIG, WEIGHTS)])


def _config(folder: Path, place: Path) -> dict[str, Any]:
    path = place / CONFIG
    if not path.is_file():
        whole = " It holds a whole model: give that to --model." if (place / "config.json").is_file() else ""
        raise ModelError(f"--adapter {folder} holds no {CONFIG}.{whole}", remedy=_WHAT_IT_IS)
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= _LARGEST else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ModelError(f"--adapter {folder}: {CONFIG} is no JSON object", remedy="Save the adapter again.")
    if config.get("peft_type") != "LORA":
        remedy = "Other kinds of adapters are not what the grid's variants could be compared with."
        raise ModelError(f"--adapter {folder} is of PEFT's type {config.get('peft_type')!r}, not LORA", remedy=remedy)
    _check_apart(folder, config)
    return config


def _check_apart(folder: Path, config: dict[str, Any]) -> None:
    """All variants share one base: an adapter that changes it would change what is measured after it."""
    changing = [name for name in _CHANGING if config.get(name)]
    if config.get("bias", "none") != "none":
        changing.append("bias")
    if config.get("init_lora_weights", True) not in _PLAIN_START:
        changing.append("init_lora_weights")
    if changing:
        remedy = "Convert it to a plain LoRA adapter (PEFT's save_pretrained can, for PiSSA and its kin), or merge it."
        raise ModelError(f"--adapter {folder} changes the base itself ({', '.join(changing)})", remedy=remedy)


def _shapes(folder: Path, place: Path) -> list[int]:
    """Sizes of its tensors; only the header is read."""
    from safetensors import SafetensorError, safe_open

    path = place / WEIGHTS
    if not path.is_file():
        pickled = [name for name in ("adapter_model.bin", "adapter_model.pt") if (place / name).is_file()]
        if pickled:
            remedy = "Loading a pickle runs whatever is in it. Save the adapter with safe_serialization=True."
            raise ModelError(f"--adapter {folder}: its weights are a pickle ({pickled[0]})", remedy=remedy)
        raise ModelError(f"--adapter {folder} holds no {WEIGHTS}", remedy=_WHAT_IT_IS)
    try:
        with safe_open(path, framework="numpy") as tensors:
            return [_size(tensors.get_slice(name).get_shape()) for name in tensors.keys()]  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise ModelError(f"--adapter {folder}: {WEIGHTS} is damaged: {error}", remedy="Save it again.") from None


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _check_base(folder: Path, base: str, model: ModelRef) -> None:
    """Only a Hub's name is a name: a path is where the base lay on some other machine. Shapes are checked later."""
    last = base.rstrip("/").rpartition("/")[2].lower()
    known = {model.name.rpartition("/")[2].partition("@")[0].lower(), Path(model.path).name.lower()}
    if _HUB_NAME.fullmatch(base) and not base.startswith(".") and last not in known:
        remedy = f"Name that one with --model {base}, or an adapter of this one."
        raise ModelError(
            f"--adapter {folder} was trained on {base}, and this run's base is {model.name}", remedy=remedy
        )
