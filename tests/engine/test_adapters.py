"""A saved adapter answers as it did in memory, damaged adapters are refused, and detaching leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.answers import Answer
from harness.core.errors import EngineError, StoreError
from harness.engine.adapters import attached
from harness.engine.loading import Base
from harness.storage.manifest import verify_manifest, write_manifest
from tests.support.short_trainings import QUESTIONS, SHORT, ask, training, weights

ADAPTER = "adapter_model.safetensors"


def logits(base: Base) -> Any:
    import torch

    ids = base.tokenizer("What is the capital of France?", return_tensors="pt").input_ids
    with torch.inference_mode():
        return base.model(input_ids=ids).logits


def test_a_saved_adapter_answers_as_in_memory(base: Base, tuned: tuple[Path, list[Answer]]) -> None:
    """A saved adapter gives the answers that it gave before it was saved, which differ from the base's."""
    folder, in_memory = tuned
    with attached(base, folder) as model:
        assert ask(base, model) == in_memory
    assert ask(base) != in_memory


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_detaching_leaves_the_base_as_it_was(base: Base, tuned: tuple[Path, list[Answer]]) -> None:
    """After an adapter is detached, or a training ends or fails, the base is bit-identical and has no adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    few = QUESTIONS[:3]
    answers, before, modules = ask(base, texts=few), logits(base), [name for name, _ in base.model.named_modules()]
    attributes = set(vars(base.model))

    def unchanged() -> bool:
        assert [name for name, _ in base.model.named_modules()] == modules
        assert not any(isinstance(module, BaseTunerLayer) for module in base.model.modules())
        assert not any(parameter.requires_grad for parameter in base.model.parameters())
        assert set(vars(base.model)) == attributes
        return bool(logits(base).equal(before)) and ask(base, texts=few) == answers

    with attached(base, tuned[0]) as model:
        assert not logits(base).equal(before)
        assert ask(base, model, few) != answers
    assert unchanged()
    with training(base):
        pass
    assert unchanged()
    # TRL refuses this target after PEFT has already put the adapter on the model.
    with pytest.raises(ValueError, match="lm_head"), training(base, replace(SHORT, target_modules=("lm_head",))):
        pass
    assert unchanged()
    with pytest.raises(KeyboardInterrupt), training(base):
        raise KeyboardInterrupt
    assert unchanged()


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(str(folder / ADAPTER)))


def spoiled(tuned: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy an adapter after applying `change` to its tensors."""
    from safetensors.torch import save_file

    held = tensors(tuned)
    change(held)
    save_file(held, str(folder / ADAPTER))
    (folder / "adapter_config.json").write_bytes((tuned / "adapter_config.json").read_bytes())
    return folder


def test_a_flipped_byte_is_refused(tuned: tuple[Path, list[Answer]], tmp_path: Path) -> None:
    """An adapter with a flipped byte in a weight is refused, although PEFT would load it without an error."""
    folder = spoiled(tuned[0], tmp_path, lambda held: None)
    write_manifest(folder)
    verify_manifest(folder)
    content = bytearray((folder / ADAPTER).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / ADAPTER).write_bytes(content)
    with pytest.raises(StoreError, match="has changed since it was saved"):
        verify_manifest(folder)


A = "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")
NINTH = A.replace("layers.2", "layers.9")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda held: held.update({A.replace("layers", "blocks"): held.pop(A)}), f"it lacks {A}"),
        (lambda held: held.pop(B), f"it lacks {B}"),
        (lambda held: [held.pop(A), held.pop(B)], f"it lacks {A}, {B}"),
        (lambda held: held.update({NINTH: held[A].clone()}), f"the model has no {NINTH}"),
        (lambda held: held.update({A: held[A][:2].contiguous()}), f"these have another shape: {A}"),
        (lambda held: held.update({A: held[A][:, :64].contiguous()}), f"these have another shape: {A}"),
    ],
    ids=["renamed layer", "missing half", "missing layer", "extra layer", "other rank", "other model"],
)
def test_an_adapter_that_does_not_fit_is_refused(
    base: Base,
    tuned: tuple[Path, list[Answer]],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    complaint: str,
) -> None:
    """An adapter whose tensors do not match the base is refused, and no part of the adapter stays on the base."""
    folder = spoiled(tuned[0], tmp_path, change)
    before = [name for name, _ in base.model.named_modules()]
    with pytest.raises(EngineError, match=complaint), attached(base, folder):
        pass
    assert [name for name, _ in base.model.named_modules()] == before


def test_an_adapter_without_weights_is_refused(base: Base, tuned: tuple[Path, list[Answer]], tmp_path: Path) -> None:
    """An adapter folder without a weights file is refused, and the message names the file."""
    folder = spoiled(tuned[0], tmp_path, lambda held: None)
    (folder / ADAPTER).unlink()
    with pytest.raises(EngineError, match=f"{ADAPTER} does not exist"), attached(base, folder):
        pass


def test_attaching_gives_the_weights_that_were_saved(base: Base, tuned: tuple[Path, list[Answer]]) -> None:
    """An attached adapter has the weights of its file, bit for bit."""
    with attached(base, tuned[0]) as model:
        there = {name.replace(".default", ""): tensor for name, tensor in weights(model).items()}
    saved = tensors(tuned[0])
    assert there.keys() == saved.keys()
    assert all(there[name].equal(saved[name]) for name in saved)
