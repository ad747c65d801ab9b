"""The quantised base as it lies on disk: written once, read again bit for bit, streamed weight by weight.

It is a folder as `save_pretrained` writes a model that bitsandbytes has quantised, and as `from_pretrained` opens it:
safetensors in which a 4-bit weight lies packed beside its constants (`NAME.absmax` and so on). For a 7B that is 3.6 GB
instead of 13.5, and quantising it again is spared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import EngineError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SHARD_BYTES = 500 * 10**6
"""Of one file, which is what writing needs of the host's memory."""
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_STATE = ".quant_state.bitsandbytes__"


@dataclass(frozen=True)
class Weight:
    """One of a base's weights, in the dtype that the base computes in; dequantised where `quantised`."""

    name: str
    tensor: torch.Tensor
    quantised: bool


def save_base(model: PreTrainedModel, folder: Path) -> None:
    """Write the base's weights and its config into `folder`, which exists; the tokenizer is not among them."""
    model.save_pretrained(str(folder), max_shard_size=SHARD_BYTES)


def size_of(model: PreTrainedModel) -> int:
    """Bytes that `save_base` will need, to a few percent."""
    return int(model.get_memory_footprint())


def weights(folder: Path, *, device: str = "cpu") -> Iterator[Weight]:
    """Every weight of a saved base, one at a time, as the forward pass computes with it.

    A 4-bit weight is dequantised on `device`. What is added to it is added to the model that was trained and evaluated,
    which neither the 4-bit weights nor the original ones are.

    Raises:
        EngineError: the files are not those of a saved base.
    """
    held = open_base(folder, device=device)
    for name in held.names:
        yield Weight(name, held.weight(name), quantised=name in held.packed)


@dataclass(frozen=True)
class OpenBase:
    """A saved base of which nothing is read yet."""

    tensors: Mapping[str, Any]
    """The name of every tensor, and the open file it lies in."""
    packed: frozenset[str]
    """The weights that lie in 4 bits."""

    @property
    def names(self) -> list[str]:
        """The weights', without the constants of those in 4 bits."""
        return [name for name in self.tensors if name in self.packed or _owner(name) not in self.packed]

    def weight(self, name: str) -> torch.Tensor:
        """As the forward pass computes with it."""
        if name in self.packed:
            return _dequantised(name, self.tensors)
        tensor: torch.Tensor = self.tensors[name].get_tensor(name)
        return tensor


def open_base(folder: Path, *, device: str = "cpu") -> OpenBase:
    """A base that `save_base` wrote, to be read weight by weight.

    Raises:
        EngineError: the files are not those of a saved base.
    """
    from safetensors import safe_open

    files = _files(folder)
    opened = {path: safe_open(str(path), framework="pt", device=device) for path in sorted(set(files.values()))}
    packed = frozenset(name.partition(_STATE)[0] for name in files if _STATE in name)
    return OpenBase({name: opened[path] for name, path in files.items()}, packed)


def _files(folder: Path) -> dict[str, Path]:
    """The name of every tensor, and the file it lies in."""
    from safetensors import safe_open

    try:
        if (folder / INDEX).is_file():
            listed = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            return {name: folder / Path(file).name for name, file in listed.items()}
        with safe_open(str(folder / SINGLE), framework="pt") as file:
            return dict.fromkeys(file.keys(), folder / SINGLE)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        remedy = "Delete the folder: `harness run` saves the base again."
        raise EngineError(f"{folder} holds no saved base: {error}", remedy=remedy) from error


def _owner(name: str) -> str:
    """The weight that a constant such as `x.weight.absmax` belongs to."""
    return name.partition(".weight.")[0] + ".weight"


def _dequantised(name: str, tensors: Mapping[str, Any]) -> torch.Tensor:
    from bitsandbytes.functional import QuantState, dequantize_4bit

    data = tensors[name].get_tensor(name)
    constants = {part: tensors[part].get_tensor(part) for part in tensors if part.startswith(f"{name}.")}
    tensor: torch.Tensor = dequantize_4bit(data, QuantState.from_dict(constants, device=data.device))
    return tensor
