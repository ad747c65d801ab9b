"""Saves what was trained, and attaches it again only if it is whole.

PEFT loads an adapter with flipped bytes or wrong layer names without complaint, so the files' digests are checked by
the store before, and the tensors' names here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.base import Base, untouched
from harness.errors import EngineError

if TYPE_CHECKING:
    from peft import PeftModel


def save_adapter(model: PeftModel, folder: Path) -> None:
    """The adapter as PEFT writes it: adapter_config.json and adapter_model.safetensors, in fp32."""
    model.save_pretrained(str(folder), safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


@contextlib.contextmanager
def attached(base: Base, folder: Path) -> Iterator[PeftModel]:
    """The base with the adapter in `folder`; afterwards the base is bare again.

    Raises:
        EngineError: the adapter's tensors are not those that its configuration asks for.
    """
    from peft import PeftModel

    _check_keys(base, folder)
    with untouched(base.model):
        model = PeftModel.from_pretrained(base.model, str(folder), is_trainable=False)
        model.eval()
        try:
            yield model
        finally:
            detach(model)


def detach(model: PeftModel) -> None:
    """Take the adapter's layers out of the base again."""
    base = model.unload()
    for leftover in ("peft_config", "_hf_peft_config_loaded"):
        base.__dict__.pop(leftover, None)


def _check_keys(base: Base, folder: Path) -> None:
    """Each target layer has its A and B in the file, and the file has nothing else."""
    from peft import LoraConfig
    from safetensors import safe_open

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise EngineError(f"{folder} holds no adapter_model.safetensors", remedy="Train the variant again.")
    with safe_open(str(path), framework="pt") as file:
        names = set(file.keys())
    stems = {name.rsplit(".lora_", 1)[0].removeprefix("base_model.model.") for name in names}
    known = {name for name, _ in base.model.named_modules()}
    targets = LoraConfig.from_pretrained(str(folder)).target_modules or ()
    wrong = sorted(stems - known)
    missing = sorted(
        name
        for name in known
        if isinstance(targets, (set, list, tuple)) and name.rsplit(".", 1)[-1] in targets and name not in stems
    )
    halves = sorted(s for s in stems for half in "AB" if f"base_model.model.{s}.lora_{half}.weight" not in names)
    for problem, layers in (("unknown layers", wrong), ("no weights for", missing), ("half of", halves)):
        if layers:
            listed = ", ".join(layers[:3])
            raise EngineError(f"{path} does not fit the model: {problem} {listed}", remedy="Train the variant again.")
