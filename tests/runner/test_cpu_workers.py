"""Tests of the number of workers on a CPU that the user has not chosen."""

from __future__ import annotations

import pytest

from harness.core.engines import Engine
from harness.core.settings import Settings, Trial
from harness.hardware.estimate.predictions import Workload
from harness.models.architecture import ModelShape
from harness.models.token_lengths import Lengths
from harness.runner.composition import Composition
from harness.runner.cpu_workers import planned_workers
from harness.suites.grids import trial_id

POCKET = ModelShape(256, 8, 8, 8, 32, 704, 2048, tied=True)
LLAMA = ModelShape(4096, 32, 32, 32, 128, 11008, 32000, tied=False)
GIB = 2**30


def workload(shape: ModelShape, rows: int = 30) -> Workload:
    return Workload("", shape, Lengths((29,) * rows, (12,) * rows, counted=True), prompts=7 * rows, new_tokens=48)


def trials(count: int, rank: int = 8) -> list[Trial]:
    rows = [Settings(learning_rate=n * 1e-4, epochs=6, rank=rank) for n in range(1, count + 1)]
    return [Trial(trial_id(settings, 0), "", settings, 0) for settings in rows]


@pytest.mark.parametrize(("cores", "count", "expected"), [(1, 24, 1), (2, 24, 2), (16, 24, 3), (16, 8, 1)])
def test_every_core_has_a_worker_if_there_are_passes(cores: int, count: int, expected: int) -> None:
    """There is a worker for each core, but no more than passes, so a run of one pass has one worker."""
    found = planned_workers(workload(POCKET), trials(count), Engine.FUSED, Composition(), cores=cores, memory=64 * GIB)
    assert found == expected


def test_short_runs_have_one_worker() -> None:
    """A further worker starts only if its share of the work takes longer than its start."""
    few = workload(POCKET, rows=2)
    assert planned_workers(few, trials(24), Engine.FUSED, Composition(), cores=2, memory=64 * GIB) == 1


@pytest.mark.parametrize(("shape", "memory", "expected"), [(POCKET, 3, 1), (POCKET, 8, 2), (LLAMA, 64, 1)])
def test_each_worker_has_room_for_a_pass(shape: ModelShape, memory: int, expected: int) -> None:
    """Main memory, in GiB, must have room for the dequantised base and a pass of each worker."""
    found = planned_workers(
        workload(shape), trials(24, rank=16), Engine.FUSED, Composition(), cores=2, memory=memory * GIB
    )
    assert found == expected


def test_without_memory_for_two_trials_there_is_one_worker() -> None:
    """The reference engine trains one trial at a time, for which the prediction always has room, so two must fit."""
    alone = workload(LLAMA), trials(4), Engine.REFERENCE, Composition()
    assert planned_workers(*alone, cores=4, memory=64 * GIB) == 1
    assert planned_workers(*alone, cores=4, memory=2048 * GIB) == 4
