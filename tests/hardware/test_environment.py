"""Tests of choosing the device of a run: the GPU, a larger GPU limited to a T4, or the CPU."""

from __future__ import annotations

import pytest

from harness.core import device_profiles
from harness.core.errors import UsageError
from harness.core.measurement import Basis
from harness.hardware.environment import machine
from harness.hardware.gpu import Gpu, first_visible

T4 = Gpu("Tesla T4", (7, 5), 15 << 30)
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80 << 30)


@pytest.mark.parametrize(
    ("profile", "found", "expected"),
    [
        (device_profiles.AUTO, H100, ("cuda", "bfloat16", Basis.MEASURED, None)),
        (device_profiles.AUTO, T4, ("cuda", "float16", Basis.MEASURED, None)),
        (device_profiles.T4, T4, ("cuda", "float16", Basis.MEASURED, device_profiles.T4.memory_cap)),
        (device_profiles.T4, H100, ("cuda", "float16", Basis.EMULATED, device_profiles.T4.memory_cap)),
        (device_profiles.CPU, H100, ("cpu", "float32", Basis.MEASURED, None)),
        (device_profiles.AUTO, None, ("cpu", "float32", Basis.MEASURED, None)),
    ],
)
def test_machine(
    profile: device_profiles.Profile, found: Gpu | None, expected: tuple[str, str, Basis, int | None]
) -> None:
    """The data type is one that the device supports. On another GPU, figures of the profile `t4` count as emulated."""
    on = machine(profile, ask=lambda: found)
    assert (on.kind, on.compute_dtype, on.basis, on.memory_cap) == expected
    assert on.kind == "cpu" or (found and on.device == found.name)


def test_a_t4_needs_a_gpu() -> None:
    """If the machine has no GPU, the profile `t4` is an error whose remedy is `--profile cpu`."""
    with pytest.raises(UsageError, match="--profile cpu"):
        machine(device_profiles.T4, ask=lambda: None)


@pytest.mark.parametrize(
    ("variable", "expected"),
    [(None, 0), ("0", 0), ("1", 1), ("3, 0", 3), ("GPU-8a56,1", "GPU-8a56"), ("", None), ("-1", None), ("none", None)],
)
def test_the_first_gpu_is_the_one_that_cuda_shows_first(variable: str | None, expected: int | str | None) -> None:
    """The GPU that is used is the first in CUDA_VISIBLE_DEVICES, which can hide GPUs and change their order."""
    assert first_visible(variable) == expected
