"""Tests of the places of a machine that run workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from harness.core import device_profiles
from harness.core.errors import UsageError
from harness.hardware.gpu import Gpu
from harness.runner.executors.protocol import ONLY, Place
from harness.runner.places import local_places

T4 = Gpu("Tesla T4", (7, 5), 15 * 2**30)
OLD = Gpu("GeForce GT 710", (3, 5), 2**30)
KAGGLE: Mapping[int | str, Gpu] = {0: T4, 1: T4}
MIXED: Mapping[int | str, Gpu] = {3: T4, 5: OLD, "GPU-a": T4}


def used(found: Mapping[int | str, Gpu], **more: Any) -> list[tuple[str, str]]:
    """Return the name of each place, and the GPU that its workers see."""
    places = local_places(device_profiles.AUTO, ask=lambda: found, **more)
    return [(place.name, place.variables["CUDA_VISIBLE_DEVICES"]) for place in places]


@pytest.mark.parametrize(
    ("found", "chosen", "expected"),
    [
        (KAGGLE, None, [("GPU 0", "0"), ("GPU 1", "1")]),
        (KAGGLE, "1", [("", "0")]),
        (KAGGLE, "2", [("GPU 0", "0"), ("GPU 1", "1")]),
        (KAGGLE, "1,0", [("GPU 1", "1"), ("GPU 0", "0")]),
        (MIXED, None, [("GPU 0", "3"), ("GPU 2", "GPU-a")]),
        (MIXED, "0, 2", [("GPU 0", "3"), ("GPU 2", "GPU-a")]),
    ],
)
def test_each_gpu_is_a_place(
    found: Mapping[int | str, Gpu], chosen: str | None, expected: list[tuple[str, str]]
) -> None:
    """Each visible GPU of the first one's kind is a place, or each that `--gpus` names; its workers see no other."""
    assert used(found, chosen=chosen) == expected


@pytest.mark.parametrize(
    ("found", "more", "message"),
    [
        (KAGGLE, {"chosen": "3"}, "this machine has 2 visible"),
        (KAGGLE, {"chosen": "0,2"}, "this machine has 2 visible"),
        (KAGGLE, {"chosen": "0"}, "this machine has 2 visible"),
        (KAGGLE, {"chosen": "0,0"}, "names no GPUs"),
        (KAGGLE, {"chosen": "all"}, "names no GPUs"),
        (KAGGLE, {"chosen": ""}, "names no GPUs"),
        (MIXED, {"chosen": "2"}, "GPUs of different kinds: GeForce GT 710 and Tesla T4"),
        (KAGGLE, {"workers": 2}, "this run has one worker per GPU"),
        ({}, {"chosen": "1"}, "this machine has no NVIDIA GPU"),
    ],
)
def test_other_wishes_are_refused(found: Mapping[int | str, Gpu], more: dict[str, Any], message: str) -> None:
    """GPUs that do not exist or differ in kind, and options for another device, are refused with a remedy."""
    with pytest.raises(UsageError, match=message) as caught:
        used(found, **more)
    assert caught.value.remedy


def test_workers_on_a_cpu_share_its_threads() -> None:
    """On a CPU there is one place that uses all cores, or with `--workers` several that share them."""
    assert local_places(device_profiles.CPU) == (ONLY,)
    shared = local_places(device_profiles.CPU, workers=64)
    assert shared[0] == Place("worker 1", threads=1)
    assert len(shared) == 64
    with pytest.raises(UsageError, match="--profile cpu uses no GPU"):
        local_places(device_profiles.CPU, chosen="1")
