"""The log filter hides one piece of advice from bitsandbytes, and no other message."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from harness.engine.log_filters import hide_kernel_advice

OPS = "bitsandbytes.backends.cpu.ops"
SAID = "Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please make sure"
ABSENT = ModuleNotFoundError("No module named 'kernels'", name="kernels")
LOADED = """
from harness.engine.loading import load_base
from harness.models.resolving import resolve
from harness.core import device_profiles
from harness.hardware.environment import machine
from harness.core.settings import Quantization
load_base(resolve("pocket"), Quantization.NF4, machine(device_profiles.CPU))
"""


@pytest.mark.parametrize(
    ("logger", "message", "why", "logged"),
    [
        (OPS, SAID, ABSENT, False),
        (OPS, SAID, ModuleNotFoundError("No module named 'requests'", name="requests"), True),
        (OPS, SAID, OSError("the connection was lost"), True),
        (OPS, "Failed to load libbitsandbytes: %s", ABSENT, True),
        ("bitsandbytes.cextension", SAID, ABSENT, True),
    ],
)
def test_only_the_advice_about_kernels_is_hidden(
    caplog: pytest.LogCaptureFixture, logger: str, message: str, why: Exception, logged: bool
) -> None:
    """Only the advice to install `kernels` is hidden; other messages of bitsandbytes are still logged."""
    hide_kernel_advice()
    logging.getLogger(logger).warning(message, why)
    assert bool(caplog.records) is logged


def test_loading_a_base_prints_no_advice() -> None:
    """Loading a base in 4 bits in a new process prints no message about `kernels`."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert "kernels" not in done.stdout + done.stderr
