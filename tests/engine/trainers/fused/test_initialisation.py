"""Fused trials start with the weights that PEFT would draw, and are saved in the form of PEFT's files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.engine.adapters import save_adapter
from harness.engine.loading import Base
from harness.engine.trainers.fused.initialisation import initial_adapter, initial_adapters
from tests.support.fused_passes import SIX, together
from tests.support.short_trainings import SHORT, training


def test_saved_files_have_the_form_of_sfttrainers(base: Base, tmp_path: Path) -> None:
    """Fused training and SFTTrainer save the same files, configuration, and tensor names, shapes and dtypes."""
    from safetensors import safe_open

    settings = replace(SHORT, target_modules="all-linear", rslora=True, dropout=0.1, epochs=0.5)
    (own,) = together(base, settings).values()
    for name in ("fused", "reference"):
        (tmp_path / name).mkdir()
    own.save(tmp_path / "fused")
    with training(base, settings) as found:
        save_adapter(found.model, tmp_path / "reference")
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("fused", "reference")]
    assert files[0] == files[1]

    def config(name: str) -> dict[str, Any]:
        held = json.loads((tmp_path / name / "adapter_config.json").read_text(encoding="utf-8"))
        return held | {"target_modules": sorted(held["target_modules"])}

    def header(name: str) -> tuple[Any, ...]:
        with safe_open(tmp_path / name / "adapter_model.safetensors", "pt") as held:  # type: ignore[no-untyped-call]
            slices = {key: held.get_slice(key) for key in held.keys()}  # noqa: SIM118
            shapes = {key: (one.get_shape(), one.get_dtype()) for key, one in slices.items()}
            return held.metadata(), shapes

    assert config("fused") == config("reference")
    assert header("fused") == header("reference")


def test_redrawn_adapters_equal_pefts(base: Base) -> None:
    """An adapter drawn for another seed equals PEFT's adapter for that seed bit for bit, with its own scaling."""
    other = replace(SIX[1], learning_rate=1e-3)
    trials = [(SIX[0], 3), (SIX[1], 4), (replace(SIX[0], epochs=9), 5), (other, 6), (SIX[0], 3)]
    for found, trial in zip(initial_adapters(base, trials), trials, strict=True):
        expected = initial_adapter(base, *trial)
        assert found.adapter.scaling == expected.adapter.scaling
        assert found.config == expected.config
        assert found.adapter.weights.keys() == expected.adapter.weights.keys()
        for name, pair in expected.adapter.weights.items():
            assert all(one.equal(two) for one, two in zip(pair, found.adapter.weights[name], strict=True))
