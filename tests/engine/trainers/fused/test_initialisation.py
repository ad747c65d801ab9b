"""Fused trials start with the weights that PEFT would draw, and are saved in the form of PEFT's files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from harness.core.settings import Quantization
from harness.engine.adapters import save_adapter
from harness.engine.loading import Base, load_base
from harness.engine.trainers.fused.initialisation import InitialAdapter, initial_adapter, initial_adapters
from harness.models.resolving import resolve
from tests.support.fused_passes import SIX, together
from tests.support.short_trainings import SHORT, one_core, training


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


TRIALS = [
    (SIX[0], 3), (SIX[1], 4), (replace(SIX[0], epochs=9), 5), (replace(SIX[1], learning_rate=1e-3), 6), (SIX[0], 3),
]  # fmt: skip


def check_equal_to_pefts(base: Base, found: Sequence[InitialAdapter]) -> None:
    for one, trial in zip(found, TRIALS, strict=True):
        expected = initial_adapter(base, *trial)
        assert one.adapter.scaling == expected.adapter.scaling
        assert one.config == expected.config
        assert one.adapter.weights.keys() == expected.adapter.weights.keys()
        assert one.vector.dtype == expected.vector.dtype
        for name, pair in expected.adapter.weights.items():
            assert all(mine.equal(theirs) for mine, theirs in zip(one.adapter.weights[name], pair, strict=True))


def test_drawn_adapters_equal_pefts(base: Base) -> None:
    """Adapters that are drawn in threads equal PEFT's bit for bit, with their own scaling and configuration."""
    check_equal_to_pefts(base, initial_adapters(base, TRIALS))


def test_drawn_adapters_are_rounded_as_pefts_on_a_base_in_fp16() -> None:
    """On a 4-bit base that computes in fp16, drawn adapters equal those that PEFT rounds to fp16 and TRL to bf16."""
    half = load_base(resolve("pocket"), Quantization.NF4, replace(one_core(), compute_dtype="float16"))
    check_equal_to_pefts(half, initial_adapters(half, TRIALS))


def test_peft_makes_every_adapter_if_it_draws_other_numbers(base: Base) -> None:
    """If PEFT draws a module's weights in an unknown way, here in double precision, it makes all adapters itself."""
    torch.set_default_dtype(torch.float64)
    try:
        check_equal_to_pefts(base, initial_adapters(base, TRIALS))
    finally:
        torch.set_default_dtype(torch.float32)
