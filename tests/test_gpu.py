"""What only a CUDA device can show: fp16 training as on a T4, its memory figures, and running out of memory."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.executors.processes import Processes
from harness.grid import trial_id, variant_id
from harness.models import resolve
from harness.provenance import Profile, machine, stack_versions
from harness.records import Machine, Quantization, Settings, Split, Status, Step, Suite, Trial, TrialRecord
from harness.store import Cache, RunStore
from harness.suites import load_suite
from harness.sweep import Setup, Sweep

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
SUITE = Path(__file__).parent.parent / "suites" / "workshop"
SHORT = Settings(
    learning_rate=2e-3, epochs=2.5, warmup=0.1, rank=16, alpha=32, batch_size=4, quantization=Quantization.NF4
)


@pytest.fixture(scope="module")
def t4() -> Machine:
    """A machine under the profile `t4`; where a GPU is declared, not finding it is a failure."""
    import torch

    if not torch.cuda.is_available():
        if os.environ.get("HARNESS_GPU") == "1":
            pytest.fail("HARNESS_GPU=1 and torch finds no CUDA device")
        pytest.skip("no CUDA device")
    return machine(Profile.T4)


@pytest.fixture(scope="module")
def suite() -> Suite:
    """Of the workshop's cases the first of each role: enough to be asked."""
    whole = load_suite(SUITE)
    return replace(whole, cases=whole.of(Split.MAIN)[:8])


def sweep(folder: Path, suite: Suite, on: Machine, *variants: Settings) -> tuple[TrialRecord, ...]:
    """One record per variant, the base's first, by real worker processes."""
    trials = [Trial(trial_id(s, 0), variant_id(s), s, 0) for s in variants]
    setup = Setup(suite, resolve("pocket"), on, "reference", stack_versions())
    store = RunStore(folder / "run")
    store.root.mkdir()
    return Sweep(setup, store, Cache(folder / "cache"), Processes()).go(trials, Split.MAIN, "")


def test_fp16_trains_with_every_optimizer_of_the_workshop(tmp_path: Path, suite: Suite, t4: Machine) -> None:
    """In fp16, AdamW and paged 8-bit AdamW both bring the loss down (that no weight is in bf16 the engine asserts)."""
    paged = replace(SHORT, optimizer="paged_adamw_8bit")
    _, *tuned = sweep(tmp_path, suite, t4, SHORT, paged)
    assert t4.compute_dtype == "float16"
    assert [(r.status, r.message) for r in tuned] == [(Status.SUCCEEDED, "")] * 2
    for record in tuned:
        losses = [step.loss for step in steps(record)]
        assert losses[0] is not None
        assert losses[-1] is not None
        assert losses[-1] < losses[0] / 4


def test_a_trial_that_does_not_fit_is_a_result(tmp_path: Path, suite: Suite, t4: Machine) -> None:
    """Out of memory ends one trial, says so, and leaves the next one a clean process."""
    long = replace(suite, examples=tuple(replace(e, messages=e.messages * 8) for e in suite.examples) * 4)
    small = replace(t4, memory_cap=400 * 2**20)
    huge = replace(SHORT, batch_size=100, epochs=1.0)
    base, first, second = sweep(tmp_path, long, small, huge, replace(SHORT, batch_size=1, epochs=0.1))
    assert (base.status, first.status, second.status) == (
        Status.SUCCEEDED,
        Status.OUT_OF_MEMORY,
        Status.SUCCEEDED,
    ), (first.message, second.message)
    assert "memory" in first.message
    assert first.log != second.log


def test_cuda_memory_is_told_apart(tmp_path: Path, suite: Suite, t4: Machine) -> None:
    """Every phase has its peak allocated, reserved and device memory, in that order of size."""
    for record in sweep(tmp_path, suite, t4, SHORT):
        for cost in record.costs:
            assert cost.peak_allocated is not None
            assert cost.peak_reserved is not None
            assert cost.peak_device is not None
            assert 0 < cost.peak_allocated.value <= cost.peak_reserved.value <= cost.peak_device.value


def test_fp16_on_the_gpu_follows_fp32_on_the_cpu(tmp_path: Path, suite: Suite, t4: Machine) -> None:
    """Twenty steps from the same start: every loss within 1% of the largest."""
    (tmp_path / "gpu").mkdir()
    (tmp_path / "cpu").mkdir()
    gpu = sweep(tmp_path / "gpu", suite, t4, SHORT)[1]
    cpu = sweep(tmp_path / "cpu", suite, machine(Profile.CPU), SHORT)[1]
    pairs = [(a.loss, b.loss) for a, b in zip(steps(gpu), steps(cpu), strict=True)][:20]
    top = max(b for _, b in pairs if b is not None)
    assert len(pairs) == 20
    assert [(a, b) for a, b in pairs if a is None or b is None or abs(a - b) > 0.01 * top] == []


def steps(record: TrialRecord) -> tuple[Step, ...]:
    assert record.training is not None, record.message
    return record.training.steps
