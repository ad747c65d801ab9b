"""Tests that need a CUDA device, under the profile `t4`: fp16 training, memory, out-of-memory errors, 4-bit bases.

`python -m tests.studies.gpu_sweep` records how much memory trainings need.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core import device_profiles
from harness.core.engines import Engine
from harness.core.machine import Machine
from harness.core.measurement import Basis, Phase
from harness.core.run import TrialRecord
from harness.core.settings import Quantization, Settings, Trial
from harness.core.suite import Split, Suite
from harness.core.training_outcome import Status, Step
from harness.engine.loading import Base, check_precision, load_base
from harness.engine.meter import Meter
from harness.engine.quantized_base import save_base
from harness.engine.random_weights import make_base
from harness.hardware.environment import machine, stack_versions
from harness.models.resolving import resolve
from harness.runner.executors.processes import Processes
from harness.runner.sweep import Sweep
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.runs import RunStore
from harness.suites import load_suite
from harness.suites.grids import trial_id, variant_id
from tests.support.short_trainings import ask, losses, trained_once, training

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
SUITE = Path(__file__).parents[2] / "suites" / "workshop"
SHORT = Settings(
    learning_rate=2e-3, epochs=2.5, warmup=0.1, rank=16, alpha=32, batch_size=4, quantization=Quantization.NF4
)


@pytest.fixture(scope="module")
def suite() -> Suite:
    """Return the workshop suite, cut to its first eight cases."""
    whole = load_suite(SUITE)
    return replace(whole, cases=whole.of(Split.MAIN)[:8])


def sweep(
    folder: Path, suite: Suite, on: Machine, *variants: Settings, engine: Engine = Engine.REFERENCE
) -> tuple[TrialRecord, ...]:
    """Run one trial for each of the settings, in worker processes. Return the base's record, then the trials'."""
    trials = [Trial(trial_id(s, 0), variant_id(s), s, 0) for s in variants]
    setup = Setup(suite, resolve("pocket"), on, engine, stack_versions())
    store = RunStore(folder / "run")
    store.root.mkdir()
    with closing(Processes()) as executor:
        return Sweep(setup, store, Cache(folder / "cache"), executor).run_trials(trials, Split.MAIN, "")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, suite: Suite, t4: Machine) -> tuple[TrialRecord, ...]:
    """Return the records of the base, of a training with AdamW and of one with paged 8-bit AdamW."""
    return sweep(tmp_path_factory.mktemp("sweep"), suite, t4, SHORT, replace(SHORT, optimizer="paged_adamw_8bit"))


def test_fp16_trains_with_every_optimizer_of_the_workshop(records: tuple[TrialRecord, ...], t4: Machine) -> None:
    """In fp16, AdamW and paged 8-bit AdamW both lower the loss to less than a quarter."""
    _, *tuned = records
    assert t4.compute_dtype == "float16"
    assert [(r.status, r.message) for r in tuned] == [(Status.SUCCEEDED, "")] * 2
    for record in tuned:
        losses = [step.loss for step in steps(record)]
        assert losses[0] is not None
        assert losses[-1] is not None
        assert losses[-1] < losses[0] / 4


def test_fp16_on_the_gpu_follows_fp32_on_the_cpu(
    tmp_path: Path, suite: Suite, records: tuple[TrialRecord, ...]
) -> None:
    """In the first twenty steps, losses in fp16 on a GPU and fp32 on a CPU differ by at most 1% of the largest."""
    cpu = sweep(tmp_path, suite, machine(device_profiles.CPU), SHORT)[1]
    pairs = [(a.loss, b.loss) for a, b in zip(steps(records[1]), steps(cpu), strict=True)][:20]
    top = max(b for _, b in pairs if b is not None)
    assert len(pairs) == 20
    assert [(a, b) for a, b in pairs if a is None or b is None or abs(a - b) > 0.01 * top] == []


def test_every_phase_has_its_cuda_memory(records: tuple[TrialRecord, ...], t4: Machine) -> None:
    """Each phase records its limit, and allocated, reserved and device memory, in this order of size."""
    for record in records:
        for cost in record.costs:
            assert cost.peak_allocated is not None
            assert cost.peak_reserved is not None
            assert cost.peak_device is not None
            assert cost.left_allocated is not None
            assert 0 < cost.peak_allocated.value <= cost.peak_reserved.value <= cost.peak_device.value
            assert cost.left_allocated.value <= cost.peak_allocated.value
            assert cost.limit is not None
            assert cost.limit.value == t4.memory_cap


def test_device_memory_is_known_without_the_driver(t4: Machine) -> None:
    """If the driver does not know the process, the predicted memory is within 300 MiB of all that the GPU has in use.

    No other process may use the GPU during this test.
    """
    import torch

    with Meter(t4, driver=lambda: None) as meter:
        held = torch.ones(2**28, device="cuda")
        free, total = torch.cuda.mem_get_info()
    found = meter.cost(Phase.TRAIN, 0).peak_device
    assert found
    assert found.basis is Basis.PREDICTED
    assert found.value == pytest.approx(total - free, abs=300 * 2**20)
    del held


@pytest.mark.parametrize("engine", [Engine.REFERENCE, Engine.FUSED])
def test_a_trial_that_does_not_fit_is_a_result(tmp_path: Path, suite: Suite, t4: Machine, engine: Engine) -> None:
    """If a trial runs out of GPU memory, it records phase, failed request and memory, and the next trial succeeds."""
    long = replace(suite, examples=tuple(replace(e, messages=e.messages * 8) for e in suite.examples) * 4)
    small = replace(t4, memory_cap=400 * 2**20)
    huge = replace(SHORT, batch_size=100, epochs=1.0)
    fits = replace(SHORT, batch_size=1, epochs=0.1)
    base, first, second = sweep(tmp_path, long, small, huge, fits, engine=engine)
    assert (base.status, first.status, second.status) == (
        Status.SUCCEEDED,
        Status.OUT_OF_MEMORY,
        Status.SUCCEEDED,
    ), (first.message, second.message)
    if engine is Engine.REFERENCE:
        assert first.log != second.log  # a process that ran out of memory gets no further trial
    short = first.shortage
    assert short is not None
    assert (short.phase, short.memory_cap) == (Phase.TRAIN, small.memory_cap)
    assert short.requested is not None
    assert short.peak_allocated is not None
    assert short.peak_reserved is not None
    assert short.requested.value + short.peak_reserved.value > 0.98 * 400 * 2**20
    assert short.peak_reserved.value <= 400 * 2**20
    assert 0 < short.peak_allocated.value <= short.peak_reserved.value
    assert "out of GPU memory in phase 'train'" in first.message
    assert first.training is not None
    assert first.training.shortage == short


# --- in this process -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(t4: Machine) -> Iterator[Base]:
    """Load the pocket model in NF4 on the GPU. Afterwards, restore the settings of PyTorch that the profile changes."""
    import torch

    yield load_base(resolve("pocket"), Quantization.NF4, t4)
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_cudnn_sdp(True)


def test_only_attention_kernels_of_a_t4_are_enabled(base: Base) -> None:
    """Under the profile `t4`, only attention kernels that a T4 has are enabled."""
    import torch

    assert not torch.backends.cuda.flash_sdp_enabled()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


@pytest.mark.parametrize("optimizer", ["adamw_torch", "paged_adamw_8bit"])
def test_nothing_is_in_bf16(base: Base, optimizer: str) -> None:
    """In training, adapters are in fp32, embeddings, head and norms in fp16, and all other weights in 4 bits."""
    import torch

    with training(base, replace(SHORT, epochs=0.5, optimizer=optimizer)) as found:
        kinds = {(p.requires_grad, p.dtype) for p in found.model.parameters()}
        check_precision(found.model, base.machine)
    assert kinds == {(True, torch.float32), (False, torch.float16), (False, torch.uint8)}


def test_a_saved_base_is_the_same_on_the_gpu(base: Base, tmp_path: Path) -> None:
    """A base that was saved and loaded on a GPU has the same bytes, answers and first loss.

    Later losses are not compared, because GPU kernels may round differently.
    """
    save_base(base.model, tmp_path)
    again = load_base(resolve("pocket"), Quantization.NF4, base.machine, saved=tmp_path)
    before, after = base.model.state_dict(), again.model.state_dict()
    assert before.keys() == after.keys()
    assert [name for name in before if not same(before[name], after[name])] == []
    assert [answer.text for answer in ask(base)] == [answer.text for answer in ask(again)]
    assert losses(trained_once(base))[0] == losses(trained_once(again))[0]


def same(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and one.device == other.device and bool(one.equal(other))


def test_a_shape_is_made_and_loaded_within_its_memory(base: Base, tmp_path: Path) -> None:
    """Making a base in TinyLlama's shape takes GPU memory for at most 2.5 times its largest tensor.

    The loaded base takes the memory of 4-bit layers and of an embedding and a head in fp16.
    """
    import torch

    ref, held = resolve("shape:tinyllama-1.1b"), torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    make_base(ref, Quantization.NF4, base.machine, tmp_path)
    largest = 32000 * 2048 * 2
    assert torch.cuda.max_memory_allocated() - held < 2.5 * largest
    torch.cuda.reset_peak_memory_stats()
    loaded = load_base(ref, Quantization.NF4, base.machine, saved=tmp_path)
    there, peak = torch.cuda.memory_allocated() - held, torch.cuda.max_memory_allocated() - held
    quantised = sum(2 * p.numel() for p in loaded.model.parameters() if p.dtype is torch.uint8)
    ends = 2 * largest
    assert there == pytest.approx(quantised * 4.13 / 8 + ends, rel=0.02)
    assert peak < 1.2 * there


def steps(record: TrialRecord) -> tuple[Step, ...]:
    assert record.training is not None, record.message
    return record.training.steps
