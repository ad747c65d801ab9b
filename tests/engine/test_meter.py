"""Peak memory and wall time of a phase do not include those of other phases."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import psutil
import pytest

from harness.core.machine import Machine
from harness.core.measurement import Basis, Measurement, Phase, PhaseCost
from harness.core.units import DeviceKind, Unit
from harness.engine.meter import Meter, requested, shortage

MACHINE = Machine(DeviceKind.CPU, "Example CPU", "float32")
LARGE = 200_000_000
"""Bytes, enough for the allocator to return them to the system at once when they are freed."""


def large() -> Any:
    import numpy as np

    return np.ones(LARGE, dtype=np.uint8)


def seen(hold: bool) -> PhaseCost:
    """Measure a phase that holds 200 MB, or nothing, until the meter has sampled it."""
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
    """Memory that is freed within a phase counts in that phase's peak and not in the next one's."""
    before, during, after = seen(False), seen(True), seen(False)
    assert during.peak_resident.value > before.peak_resident.value + 0.9 * LARGE
    assert after.peak_resident.value < during.peak_resident.value - 0.9 * LARGE


def test_held_memory_counts_in_a_later_phase() -> None:
    """Memory that an earlier phase still holds counts in a later phase's peak."""
    before = seen(False)
    held = large()
    assert seen(False).peak_resident.value > before.peak_resident.value + 0.9 * len(held)


def test_a_figure_has_unit_basis_and_device() -> None:
    """A figure has unit, basis and device, and a CPU has no GPU figures."""
    cost = seen(False)
    assert (cost.phase, cost.tokens, cost.seconds.unit, cost.peak_resident.unit) == (Phase.TRAIN, 100, "s", "bytes")
    assert {(f.basis, f.device) for f in (cost.seconds, cost.peak_resident)} == {(Basis.MEASURED, "Example CPU")}
    assert (cost.peak_allocated, cost.peak_reserved, cost.peak_device) == (None, None, None)
    assert cost.seconds.value > 0
    assert cost.tokens_per_second == pytest.approx(100 / cost.seconds.value)


def test_an_error_passes_through_the_meter() -> None:
    """An error passes through the meter, and its sampling thread ends."""
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
    """`requested` reads the size of a failed allocation from PyTorch's message, on CUDA and on a CPU."""
    assert requested(message) == size


def test_a_shortage_is_measured_where_it_happened() -> None:
    """A shortage on a CPU has the phase, the failed request and the resident memory, without GPU figures."""
    found = shortage(MACHINE, Phase.ANSWER_AFTER, RuntimeError("you tried to allocate 4096 bytes."))
    assert found.requested is not None
    assert (found.phase, found.requested.value) == (Phase.ANSWER_AFTER, 4096)
    assert found.resident.value == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert (found.peak_allocated, found.device, found.limit, found.memory_cap) == (None, None, None, None)


def test_one_rule_chooses_the_peak() -> None:
    """A phase's peak is reserved memory on a GPU and resident memory on a CPU; its GPU peak prefers the driver's."""
    cost = seen(False)
    assert (cost.peak(), cost.gpu_peak(), cost.on_gpu) == (cost.peak_resident, None, False)
    reserved = replace(cost, peak_allocated=figure(10), peak_reserved=figure(12))
    assert (reserved.peak(), reserved.gpu_peak(), reserved.on_gpu) == (figure(12), figure(12), True)
    assert replace(reserved, peak_device=figure(13)).peak() == figure(12)
    assert replace(reserved, peak_device=figure(13)).gpu_peak() == figure(13)


def figure(value: float) -> Measurement:
    return Measurement(value, Unit.BYTES, Basis.MEASURED, "Example GPU")
