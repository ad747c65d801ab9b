"""Fixtures of the engine's tests on a CUDA device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.core.machine import Machine


@pytest.fixture(scope="module")
def t4() -> Machine:
    """Return this machine under the profile `t4`.

    Without a CUDA device the test is skipped, or fails if HARNESS_GPU=1.
    """
    import torch

    from harness.hardware.environment import Profile, machine

    if not torch.cuda.is_available():
        if os.environ.get("HARNESS_GPU") == "1":
            pytest.fail("HARNESS_GPU=1 and torch finds no CUDA device")
        pytest.skip("no CUDA device")
    return machine(Profile.T4)
