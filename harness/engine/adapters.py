"""Saves adapters, and attaches them to a base after checking them.

PEFT loads an adapter with flipped bytes or wrong layer names without an error. Therefore the cache checks the digests
of the files, and this module checks the names and shapes of the tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import EngineError
from harness.engine.loading import Base, untouched

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

TRAIN_AGAIN = "Train the variant again."
Shape = tuple[int, ...]


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors with PEFT, in fp32."""
    model.save_pretrained(str(folder), safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT writes an empty model card


@contextlib.contextmanager
def attached(base: Base, folder: Path) -> Iterator[PeftModel]:
    """Attach the adapter in `folder` to the base until the context ends.

    Raises:
        EngineError: the adapter's file is missing, or its tensors do not match its configuration on this base.
    """
    from peft import LoraConfig, PeftModel

    with untouched(base.model):
        model = PeftModel(base.model, LoraConfig.from_pretrained(str(folder), inference_mode=True))
        _load(model, folder / "adapter_model.safetensors")
        yield model.eval()


def _load(model: PeftModel, path: Path) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    if not path.is_file():
        raise EngineError(f"{path} does not exist", remedy=TRAIN_AGAIN)
    held, wanted = load_file(str(path)), get_peft_model_state_dict(model)
    check_fit(path, _shapes(held), _shapes(wanted))
    set_peft_model_state_dict(model, held)


def check_fit(path: Path, held: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> None:
    """Check that the tensors in an adapter's file, `held`, have the names and shapes of those that the model needs.

    Raises:
        EngineError: a tensor is missing, unknown to the model, or of another shape.
    """
    both = held.keys() & wanted.keys()
    for problem, names in (
        ("it lacks", wanted.keys() - both),
        ("the model has no", held.keys() - both),
        ("these have another shape:", {name for name in both if held[name] != wanted[name]}),
    ):
        if names:
            raise EngineError(f"{path} does not fit the model: {problem} {_some(names)}", remedy=TRAIN_AGAIN)


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _some(names: set[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(sorted(names)[:3]) + rest
