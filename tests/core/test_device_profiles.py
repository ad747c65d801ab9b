"""Tests of the table of device profiles: one row contains all facts about a device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.device_profiles import (
    AMPERE,
    AUTO,
    CPU,
    PROFILES,
    REFERENCE,
    SPEEDS,
    T4,
    Profile,
    compute_dtype,
    help_text,
    profile_for,
    profile_of,
)
from harness.core.measurement import GIB, Basis
from harness.core.units import DeviceKind
from harness.hardware.environment import machine
from harness.hardware.estimate import predictions
from harness.hardware.gpu import Gpu
from tests.support.synthetic_runs import machine as built

L4 = Profile("l4", DeviceKind.CUDA, "L4", "NVIDIA L4", 22 * GIB, (8, 9))
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80 * GIB)
CARD = Gpu("NVIDIA L4", (8, 9), 23 * GIB)


def test_a_profile_is_one_row() -> None:
    """One new row is enough to emulate another GPU, to run on it, and to know its kernels and its Colab menu."""
    held, own = machine(L4, ask=lambda: H100), machine(L4, ask=lambda: CARD)
    assert (held.compute_dtype, held.basis, held.memory_cap) == ("bfloat16", Basis.EMULATED, L4.memory_cap)
    assert (own.compute_dtype, own.basis, own.memory_cap) == ("bfloat16", Basis.MEASURED, L4.memory_cap)
    assert (L4.flash_attention, L4.colab) == (True, "Runtime > Change runtime type > L4 GPU")
    assert L4.is_device(CARD.name)
    assert not L4.is_device("NVIDIA L40S")


def test_the_t4_has_no_ampere_features() -> None:
    """A T4 computes in fp16 and without FlashAttention; a CPU computes in fp32."""
    assert (T4.dtype, T4.flash_attention, CPU.dtype) == ("float16", False, "float32")
    assert compute_dtype(AMPERE) == "bfloat16"


def test_a_run_names_its_profile_by_its_cap() -> None:
    """The memory cap in a run's files identifies its profile, so no two profiles have the same cap."""
    caps = [profile.memory_cap for profile in PROFILES.values() if profile.memory_cap]
    assert len(set(caps)) == len(caps)
    assert profile_of(built("cuda", Basis.EMULATED)) is T4
    assert profile_of(built("cuda")) is profile_of(built()) is None


@pytest.mark.parametrize(("name", "expected"), [("Tesla T4", T4), ("NVIDIA T400", None), (H100.name, None)])
def test_a_driver_names_a_profile(name: str, expected: Profile | None) -> None:
    """A driver's name means a profile's GPU if it contains the profile's title as a whole word."""
    assert profile_for(name) is expected


def test_help_lists_every_gpu_profile() -> None:
    """The help text of `--profile` describes every GPU profile, with the right article before the GPU's name."""
    assert help_text() == (
        "auto uses a GPU if there is one; cpu uses none; t4 limits a larger GPU to a T4's memory and precision."
    )
    assert list(PROFILES) == ["auto", "cpu", "t4"]
    assert AUTO.kind is None


def test_predictions_default_to_a_t4() -> None:
    """Predictions name the GPU of their profile or, if there is no profile, the reference GPU, a T4."""
    assert (REFERENCE, REFERENCE.speeds) == (T4, SPEEDS)
    place = predictions.TargetGpu(L4.device, L4.memory_cap, SPEEDS, L4)
    assert "time not validated on an L4" in place.claim
    assert "time not validated on a T4" in replace(place, profile=None).claim
