"""Fixtures that several test modules of the engine share."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.core.answers import Answer
    from harness.core.machine import Machine
    from harness.engine.loading import Base


@pytest.fixture(scope="session")
def tuned(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Answer]]:
    """Return the folder of a saved adapter, and the answers that the adapter gave before it was saved."""
    from harness.engine.adapters import save_adapter
    from harness.storage.manifest import write_manifest
    from tests.support.short_trainings import SHORT, ask, training

    folder = tmp_path_factory.mktemp("adapter")
    with training(base, replace(SHORT, epochs=4, rank=8, alpha=16, target_modules="all-linear")) as found:
        save_adapter(found.model, folder)
        write_manifest(folder)
        return folder, ask(base, found.model.eval())


@pytest.fixture(scope="module")
def t4() -> Machine:
    """Return this machine under the profile `t4`.

    Without a CUDA device, the test is skipped; if HARNESS_GPU=1, it fails instead.
    """
    import torch

    from harness.core import device_profiles
    from harness.hardware.environment import machine

    if not torch.cuda.is_available():
        if os.environ.get("HARNESS_GPU") == "1":
            pytest.fail("HARNESS_GPU=1 and torch finds no CUDA device")
        pytest.skip("no CUDA device")
    return machine(device_profiles.T4)
