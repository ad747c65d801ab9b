"""Peak memory and wall time are measured for each phase, without those of other phases."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import psutil
import pytest

from harness.core.machine import Machine
from harness.core.measurement import Basis, Measurement, Phase, PhaseCost
from harness.core.units import DeviceKind, Unit
from harness.engine.meter import Meter, device_peak, requested, shortage
from harness.hardware.gpu import CONTEXT

MACHINE = Machine(DeviceKind.CPU, "Example CPU", "float32")
LARGE = 200_000_000
"""Bytes: enough that the allocator returns them to the system as soon as they are freed."""


def large() -> Any:
    import numpy as np

    return np.ones(LARGE, dtype=np.uint8)


def seen(hold: bool) -> PhaseCost:
    """Measure a phase until the meter has sampled it. If `hold` is true, the phase holds 200 MB."""
    with Meter(MACHINE) as meter:
        held = large() if hold else None
        resident = psutil.Process().memory_info().rss
        for _ in range(6000):  # stop after a minute in case the meter samples nothing
            if meter.cost(Phase.TRAIN, 0).peak_resident.value >= resident:
                break
            time.sleep(0.01)
        del held
    return meter.cost(Phase.TRAIN, 100)


def test_freed_memory_counts_in_its_own_phase() -> None:
    """Memory that a phase allocates and frees counts in the peak of that phase, and not in the next phase's."""
    before, during, after = seen(False), seen(True), seen(False)
    assert during.peak_resident.value > before.peak_resident.value + 0.9 * LARGE
    assert after.peak_resident.value < during.peak_resident.value - 0.9 * LARGE


def test_held_memory_counts_in_a_later_phase() -> None:
    """Memory that was allocated before a phase, and is still held, counts in the phase's peak."""
    before = seen(False)
    held = large()
    assert seen(False).peak_resident.value > before.peak_resident.value + 0.9 * len(held)


def test_a_figure_has_unit_basis_and_device() -> None:
    """Each figure has a unit, a basis and a device, and no GPU figures are measured on a CPU."""
    cost = seen(False)
    assert (cost.phase, cost.tokens, cost.seconds.unit, cost.peak_resident.unit) == (Phase.TRAIN, 100, "s", "bytes")
    assert {(f.basis, f.device) for f in (cost.seconds, cost.peak_resident)} == {(Basis.MEASURED, "Example CPU")}
    assert (cost.peak_allocated, cost.peak_reserved, cost.peak_device) == (None, None, None)
    assert cost.seconds.value > 0
    assert cost.tokens_per_second == pytest.approx(100 / cost.seconds.value)


def test_an_error_passes_through_the_meter() -> None:
    """If a measured phase raises an error, the meter passes the error on, and its sampling thread ends."""
    import threading

    threads = threading.active_count()
    with pytest.raises(ValueError, match="mine"), Meter(MACHINE):
        raise ValueError("mine")
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 14.56 GiB", 2.5 * 2**30),
        ("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has", 20 * 2**20),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error code 12", 4096),
        ("CUDA error: out of memory", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_request_that_failed_is_read(message: str, size: float | None) -> None:
    """`requested` reads the size of the failed allocation from PyTorch's message, for CUDA and for a CPU."""
    assert requested(message) == size


def test_a_shortage_is_measured_where_it_happened() -> None:
    """A shortage on a CPU has the phase, the failed request and the resident memory, and no GPU figures."""
    found = shortage(MACHINE, Phase.ANSWER_AFTER, RuntimeError("you tried to allocate 4096 bytes."))
    assert found.requested is not None
    assert (found.phase, found.requested.value) == (Phase.ANSWER_AFTER, 4096)
    assert found.resident.value == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert (found.peak_allocated, found.device, found.limit, found.memory_cap) == (None, None, None, None)


def test_one_rule_chooses_the_peak() -> None:
    """`peak` is the reserved memory on a GPU and the resident memory on a CPU.

    `gpu_peak` is the device memory that the driver reports or, without it, the reserved memory.
    """
    cost = seen(False)
    assert (cost.peak(), cost.gpu_peak(), cost.on_gpu) == (cost.peak_resident, None, False)
    reserved = replace(cost, peak_allocated=figure(10), peak_reserved=figure(12))
    assert (reserved.peak(), reserved.gpu_peak(), reserved.on_gpu) == (figure(12), figure(12), True)
    assert replace(reserved, peak_device=figure(13)).peak() == figure(12)
    assert replace(reserved, peak_device=figure(13)).gpu_peak() == figure(13)


def test_device_memory_that_the_driver_does_not_report_is_predicted() -> None:
    """Without a figure of the driver, device memory is predicted from what the process knows, and says so."""
    gpu = Machine(DeviceKind.CUDA, "Example GPU", "float16")
    assert device_peak(gpu, 13, reserved=12, paged=1) == figure(13)
    unknown = device_peak(gpu, 0, reserved=2**30, paged=2**20)
    assert unknown == replace(figure(2**30 + 2**20 + CONTEXT), basis=Basis.PREDICTED)


def figure(value: float) -> Measurement:
    return Measurement(value, Unit.BYTES, Basis.MEASURED, "Example GPU")
