"""What the engine's tests on a CUDA device share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.core.machine import Machine


@pytest.fixture(scope="module")
def t4() -> Machine:
    """A machine under the profile `t4`; where a GPU is declared, not finding it is a failure."""
    import torch

    from harness.core import device_profiles
    from harness.hardware.environment import machine

    if not torch.cuda.is_available():
        if os.environ.get("HARNESS_GPU") == "1":
            pytest.fail("HARNESS_GPU=1 and torch finds no CUDA device")
        pytest.skip("no CUDA device")
    return machine(device_profiles.T4)
