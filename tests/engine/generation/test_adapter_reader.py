"""Adapters that are read from their files alone are the same as attached ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.core.errors import EngineError
from harness.engine.generation.adapter_reader import AdapterReader
from harness.engine.generation.continuous_batching import read_adapter
from harness.engine.loading import Base, untouched


def saved(base: Base, folder: Path, seed: int, **more: Any) -> Path:
    """Save an adapter with random weights, and return its folder."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    with untouched(base.model):
        config = LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **more)
        get_peft_model(base.model, config).save_pretrained(str(folder))
    return folder


def test_one_adapter_of_each_configuration_is_attached(base: Base, tmp_path: Path) -> None:
    """The first adapter of each configuration is attached, and all are read as `read_adapter` reads them."""
    given: list[dict[str, Any]] = [
        {"r": 2, "target_modules": ["q_proj"]},
        {"r": 2, "target_modules": ["q_proj"]},
        {"r": 4, "target_modules": ["v_proj"], "use_rslora": True},
    ]
    folders = [saved(base, tmp_path / str(seed), seed, **more) for seed, more in enumerate(given)]
    used: list[str] = []
    reader = AdapterReader(base, lambda base, folder: used.append(folder.name) or read_adapter(base, folder))
    for folder in folders:
        found, expected = reader.read(folder), read_adapter(base, folder)
        assert found is not None
        assert expected is not None
        assert found.scaling == expected.scaling
        assert found.weights.keys() == expected.weights.keys()
        for module, pair in expected.weights.items():
            assert all(torch.equal(a, b) for a, b in zip(found.weights[module], pair, strict=True))
    assert used == ["0", "2"]


def test_a_file_that_does_not_fit_is_refused(base: Base, tmp_path: Path) -> None:
    """An adapter with the configuration of an earlier one is refused if its file lacks a tensor."""
    good, bad = (saved(base, tmp_path / str(seed), seed, r=2, target_modules=["q_proj"]) for seed in range(2))
    reader = AdapterReader(base)
    assert reader.read(good)
    path = bad / "adapter_model.safetensors"
    first, *others = sorted(load_file(str(path)).items())
    save_file(dict(others), str(path))
    with pytest.raises(EngineError, match=f"it lacks {first[0]}"):
        reader.read(bad)
