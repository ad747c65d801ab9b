"""Read and check adapters that other programs trained (`--adapter`), without importing torch."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from harness.core.errors import ModelError, UsageError
from harness.core.hashing import digest, file_digest
from harness.core.model import AdapterRef, ModelRef
from harness.core.names import names_a_base

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LARGEST = 1 << 20
"""Maximum size of adapter_config.json in bytes. Files that PEFT writes have about a thousand bytes."""
_CHANGING = ("modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters")
"""Settings of an adapter that replaces parts of the base model, which could not be restored for the next adapter."""
_PLAIN_START = (True, False, "gaussian", "orthogonal", None)
"""Values of `init_lora_weights` that keep the base model's weights. Other values, such as `pissa`, change them."""
_WHAT_IT_IS = f"Name a folder that holds {CONFIG} and {WEIGHTS}, as PEFT's save_pretrained writes them."


def find(folders: Sequence[Path], model: ModelRef, taken: Collection[str] = ()) -> tuple[AdapterRef, ...]:
    """Read the adapters in these folders. An adapter is named after its folder. `taken`: names of the run's variants.

    Raises:
        UsageError: two adapters, or an adapter and a variant, have the same name.
        ModelError: a folder holds no LoRA adapter, or the adapter is for another base model or has pickled weights.
    """
    found: list[AdapterRef] = []
    for folder in folders:
        one = _read(folder, model)
        if names_a_base(one.name) or one.name in {*taken, *(other.name for other in found)}:
            remedy = "Rename the folder (an adapter has the name of its folder), or name the folder only once."
            raise UsageError(f"--adapter {folder}: there is already a variant called {one.name!r}", remedy=remedy)
        found.append(one)
    return tuple(found)


def copy(adapter: AdapterRef, folder: Path) -> None:
    """Copy the two files of an adapter into a folder, and check that they are still the files that `find` read.

    Raises:
        ModelError: the files have changed since `find` read them.
    """
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(Path(adapter.path) / name, folder / name)
    if _content(folder) != adapter.digest:
        raise ModelError(f"--adapter {adapter.path} changed during the run", remedy="Run the same command again.")


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
        hint = " It holds a whole model: name that with --model." if (place / "config.json").is_file() else ""
        raise ModelError(f"--adapter {folder} holds no {CONFIG}.{hint}", remedy=_WHAT_IT_IS)
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= _LARGEST else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ModelError(f"--adapter {folder}: {CONFIG} is not a JSON object", remedy="Save the adapter again.")
    if config.get("peft_type") != "LORA":
        remedy = "Name a LoRA adapter. Other kinds of adapters cannot be compared with the variants of a grid."
        raise ModelError(f"--adapter {folder} has the PEFT type {config.get('peft_type')!r}, not LORA", remedy=remedy)
    _check_base_unchanged(folder, config)
    return config


def _check_base_unchanged(folder: Path, config: dict[str, Any]) -> None:
    """Raise `ModelError` for an adapter that changes the base model, since all variants of a run share the base
    model."""
    changing = [name for name in _CHANGING if config.get(name)]
    if config.get("bias", "none") != "none":
        changing.append("bias")
    if config.get("init_lora_weights", True) not in _PLAIN_START:
        changing.append("init_lora_weights")
    if changing:
        remedy = "Convert it to a plain LoRA adapter (PEFT's save_pretrained can do that for PiSSA), or merge it."
        raise ModelError(f"--adapter {folder} changes the base model ({', '.join(changing)})", remedy=remedy)


def _shapes(folder: Path, place: Path) -> list[int]:
    """Return the number of elements of each tensor, from the header of the safetensors file."""
    from safetensors import SafetensorError, safe_open

    path = place / WEIGHTS
    if not path.is_file():
        pickled = [name for name in ("adapter_model.bin", "adapter_model.pt") if (place / name).is_file()]
        if pickled:
            remedy = "Loading a pickle can run any code. Save the adapter with safe_serialization=True."
            raise ModelError(f"--adapter {folder}: its weights are a pickle ({pickled[0]})", remedy=remedy)
        raise ModelError(f"--adapter {folder} holds no {WEIGHTS}", remedy=_WHAT_IT_IS)
    try:
        with safe_open(path, framework="numpy") as tensors:
            return [_size(tensors.get_slice(name).get_shape()) for name in tensors.keys()]  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        damaged = f"--adapter {folder}: {WEIGHTS} is damaged: {error}"
        raise ModelError(damaged, remedy="Save the adapter again.") from None


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _check_base(folder: Path, base: str, model: ModelRef) -> None:
    """Raise `ModelError` if the adapter's configuration names a Hub model that is not this run's base model.

    A path is not compared, because it may be on another machine. The shapes of the tensors are checked later.
    """
    last = base.rstrip("/").rpartition("/")[2].lower()
    known = {model.name.rpartition("/")[2].partition("@")[0].lower(), Path(model.path).name.lower()}
    if _HUB_NAME.fullmatch(base) and not base.startswith(".") and last not in known:
        remedy = f"Run with --model {base}, or name an adapter of {model.name}."
        raise ModelError(
            f"--adapter {folder} was trained on {base}, but this run's base model is {model.name}", remedy=remedy
        )
