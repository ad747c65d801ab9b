"""Read and check adapters that other programs trained (`--adapter`), without importing torch."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from harness.core.errors import ModelError, UsageError
from harness.core.hashing import digest, file_digest
from harness.core.model import AdapterRef, ModelRef
from harness.core.names import names_a_base
from harness.models.adapter_config import check_config, ranks_allowed
from harness.models.foreign_files import read_object, tensor_shapes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
RECORD = "export.json"
"""File with which `harness export` records the base model of an adapter."""
_COPY = re.compile(r"(-unsloth)?-bnb-4bit$")
"""Suffixes of the names of copies that unsloth quantised to 4 bits. Adapters name these copies."""
_LONGEST_NAME = 200
_CHANGING = ("modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters", "megatron_config")
"""Settings of an adapter that replaces parts of the base model, which could not be restored for the next adapter."""
_PLAIN_START = (True, False, "gaussian", "orthogonal", None)
"""Values of `init_lora_weights` that keep the base model's weights. Other values, such as `pissa`, change them."""
_WHAT_IT_IS = f"Name a folder that holds {CONFIG} and {WEIGHTS}, as PEFT's save_pretrained writes them."


def find(folders: Sequence[Path], model: ModelRef, taken: Collection[str] = ()) -> tuple[AdapterRef, ...]:
    """Read the adapters in these folders. An adapter is named after its folder. `taken`: names of the run's variants.

    Raises:
        UsageError: two adapters, or an adapter and a variant, have the same name.
        ModelError: a folder holds no LoRA adapter, or the adapter has pickled weights, or the harness recorded that it
            was trained on another base model.
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
    check_config(f"--adapter {folder}: {CONFIG}", config, ranks_allowed(shapes))
    base = str(config.get("base_model_name_or_path") or "")[:_LONGEST_NAME]
    _check_digest(folder, place, model)
    targets = config.get("target_modules") or ()
    return AdapterRef(
        name=place.name,
        path=str(place),
        digest=_content(place),
        base=base,
        rank=config.get("r", 8),
        target_modules=(targets,) if isinstance(targets, str) else tuple(sorted(map(str, targets))),
        trainable_parameters=sum(map(prod, shapes.values())),
    )


def _content(folder: Path) -> str:
    return digest([file_digest(folder / name) for name in (CONFIG, WEIGHTS)])


def _config(folder: Path, place: Path) -> dict[str, Any]:
    path = place / CONFIG
    if not path.is_file():
        hint = " It holds a whole model: name that with --model." if (place / "config.json").is_file() else ""
        raise ModelError(f"--adapter {folder} holds no {CONFIG}.{hint}", remedy=_WHAT_IT_IS)
    config = read_object(path)
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


def _shapes(folder: Path, place: Path) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of each tensor, from the header of the safetensors file."""
    path = place / WEIGHTS
    if not path.is_file():
        pickled = [name for name in ("adapter_model.bin", "adapter_model.pt") if (place / name).is_file()]
        if pickled:
            remedy = "Loading a pickle can run any code. Save the adapter with safe_serialization=True."
            raise ModelError(f"--adapter {folder}: its weights are a pickle ({pickled[0]})", remedy=remedy)
        raise ModelError(f"--adapter {folder} holds no {WEIGHTS}", remedy=_WHAT_IT_IS)
    return tensor_shapes(path)


def _check_digest(folder: Path, place: Path, model: ModelRef) -> None:
    """Raise `ModelError` if the harness exported the adapter, and the base model then had another digest."""
    recorded = _recorded_base(place)
    if recorded and recorded.get("digest") != model.digest:
        name = str(recorded.get("name") or "another base model")
        remedy = (
            f"Run with --model {name}, with the same files as then. If you know that the weights of {model.name} are "
            f"the same, remove {RECORD} from the folder; then only names and shapes of the weights are compared."
        )
        what = f"--adapter {folder} was trained on {name} with other files than those of {model.name}"
        raise ModelError(what, remedy=remedy)


def _recorded_base(place: Path) -> dict[str, Any]:
    """Return the base model in the record of `harness export`, or an empty dictionary if there is no such record."""
    try:
        base = read_object(place / RECORD).get("model")
    except ModelError:
        return {}
    return base if isinstance(base, dict) and base.get("digest") else {}


def notices(adapters: Sequence[AdapterRef], model: ModelRef) -> tuple[str, ...]:
    """Return a sentence about each adapter whose configuration names another base model than `model`.

    A name is no proof: training programs write the name of their own copy, or a path on another machine. Names and
    shapes of the weights are compared when the adapter is attached.
    """
    return tuple(
        f"The adapter {adapter.name} names {adapter.base} as its base model, and this run's is {model.name}. The names "
        "and shapes of its weights are compared with this model's; check that both have the same weights."
        for adapter in adapters
        if adapter.base and not _same_model(adapter, model)
    )


def _same_model(adapter: AdapterRef, model: ModelRef) -> bool:
    """Whether the names of both base models agree, or the harness recorded that the adapter was trained on `model`."""
    known = {_last_part(model.name.partition("@")[0]), _last_part(model.path)}
    return _last_part(adapter.base) in known or _recorded_base(Path(adapter.path)).get("digest") == model.digest


def _last_part(name: str) -> str:
    """Return the last part of a name or path in lower case, without the suffix of a copy in 4 bits."""
    return _COPY.sub("", name.rstrip("/").rpartition("/")[2].lower())
