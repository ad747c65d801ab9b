"""On a CUDA device, fused training is compared with SFTTrainer, and mixed batches with one model at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama import modeling_llama

from harness.core.answers import Answer
from harness.core.machine import Machine
from harness.core.settings import Quantization, fusible
from harness.core.suite import Decoding
from harness.core.training_outcome import Status
from harness.engine.adapters import attached
from harness.engine.cuda_graphs import cuda_graph
from harness.engine.generation.continuous_batching import Request, answer_requests, read_adapter
from harness.engine.loading import Base, load_base, untouched
from harness.engine.pointwise import fused_pointwise
from harness.engine.trainers.fused.recomputation import GpuMemory
from harness.engine.trainers.fused.training import FusedResult
from harness.models.resolving import resolve
from tests.support.fused_passes import SIX, distance, figures, named, together, without_floats
from tests.support.short_trainings import SHORT, SUITE, ask, prompts, rows_of, training, weights
from tests.support.trl_scripts import CASES, script

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
ROWS = 10


@pytest.fixture(scope="module")
def half(t4: Machine) -> Base:
    """Load the pocket model in fp16, as on a T4."""
    return load_base(resolve("pocket"), Quantization.NF4, t4)


@pytest.fixture(scope="module")
def full(t4: Machine) -> Base:
    """Load the pocket model in fp32 on the GPU."""
    return load_base(resolve("pocket"), Quantization.NF4, replace(t4, compute_dtype="float32"))


def test_in_fp32_each_fused_trial_matches_sfttrainer(full: Base) -> None:
    """In fp32 on a GPU, losses and adapters of fused trials differ from SFTTrainer's by at most 0.1%."""
    rows = rows_of(full, ROWS)
    made = together(full, *SIX, rows=rows)
    for number, settings in enumerate(SIX):
        own = made[str(number)]
        with training(full, settings, rows=rows, seed=number) as alone:
            assert distance(named(own), weights(alone.model)) < 1e-3
        assert without_floats(own.steps) == without_floats(alone.steps)
        assert figures(own.steps) == pytest.approx(figures(alone.steps), rel=1e-3, abs=1e-4)


CHOSEN = [replace(SHORT, **changed) for changed, _, _ in CASES if fusible(replace(SHORT, **changed))]
"""Trials with LoRA+, chosen layers, a pattern, or a schedule with options."""


@pytest.mark.parametrize("start", range(0, len(CHOSEN), 8))
def test_in_fp32_each_axis_matches_sfttrainer(full: Base, start: int) -> None:
    """In fp32 on a GPU, fused trials with each axis differ from SFTTrainer's by at most 0.1%, also in one pass."""
    some = CHOSEN[start : start + 8]
    made = together(full, *some)
    for number, settings in enumerate(some):
        own = made[str(number)]
        with training(full, settings, seed=number) as alone:
            assert distance(named(own), weights(alone.model)) < 1e-3
        assert without_floats(own.steps) == without_floats(alone.steps)
        assert figures(own.steps) == pytest.approx(figures(alone.steps), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("changed", "arguments", "lora"), CASES)
def test_in_fp32_each_axis_matches_a_script(
    full: Base, changed: dict[str, Any], arguments: dict[str, Any], lora: dict[str, Any], tmp_path: Path
) -> None:
    """In fp32 on a GPU, losses and adapters differ by at most 0.1% from those of a script with TRL and PEFT alone."""
    with training(full, replace(SHORT, warmup=1, weight_decay=0.1, **changed)) as found:
        own, steps = weights(found.model), found.steps
    with untouched(full.model):
        trainer = script(full, tmp_path, arguments=arguments, lora=lora, ratio=changed.get("loraplus_lr_ratio", 0))
        assert distance(own, weights(trainer.model)) < 1e-3
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["learning_rate"] for log in logs] == [step.learning_rate for step in steps]
    assert [log["loss"] for log in logs] == pytest.approx([step.loss for step in steps], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw_torch", "paged_adamw_8bit"])
def test_in_fp16_losses_are_within_one_percent(half: Base, optimizer: str) -> None:
    """In fp16, each loss of a fused trial differs from SFTTrainer's by at most 1% of SFTTrainer's largest loss."""
    rows, six = rows_of(half, ROWS), [replace(settings, optimizer=optimizer) for settings in SIX]
    made = together(half, *six, rows=rows)
    for number, settings in enumerate(six):
        with training(half, settings, rows=rows, seed=number) as alone:
            pass
        pairs = [(a.loss or 0.0, b.loss or 0.0) for a, b in zip(made[str(number)].steps, alone.steps, strict=True)]
        largest = max(b for _, b in pairs)
        assert made[str(number)].status is alone.status is Status.SUCCEEDED
        assert [(a, b) for a, b in pairs if abs(a - b) > 0.01 * largest] == []


def test_passes_that_are_replayed_as_cuda_graphs_equal_others(half: Base, capsys: pytest.CaptureFixture[str]) -> None:
    """In fp16, losses of passes that are replayed as CUDA graphs are within 1% of those that run directly."""
    replays = 0

    def counted(run: Callable[[], Any], pool: Any) -> tuple[Callable[[], object], Any, Any]:
        replay, output, own = cuda_graph(run, pool)

        def count() -> None:
            nonlocal replays
            replays += 1
            replay()

        return count, output, own

    def never(*_: Any) -> Any:
        raise RuntimeError("no graph is captured")

    sweep = [replace(SIX[1], learning_rate=rate, batch_size=1, epochs=3) for rate in (1e-4, 1e-3, 3e-3)]
    graphed = together(half, *sweep, rows=rows_of(half, ROWS), capture=counted)
    assert replays > ROWS
    assert "Traceback" not in capsys.readouterr().err
    direct = together(half, *sweep, rows=rows_of(half, ROWS), capture=never)
    for name, own in direct.items():
        pairs = [(a.loss or 0.0, b.loss or 0.0) for a, b in zip(graphed[name].steps, own.steps, strict=True)]
        largest = max(b for _, b in pairs)
        assert [(a, b) for a, b in pairs if abs(a - b) > 0.01 * largest] == []


class Full(GpuMemory):
    """A GPU without any memory left."""

    def left(self) -> int:
        return 0


def test_layers_that_keep_their_activations_change_nothing(half: Base) -> None:
    """In fp16, losses are within 1% whether layers keep their activations or are all computed again, in less memory."""
    sweep = [replace(SIX[1], learning_rate=rate, epochs=3) for rate in (1e-4, 1e-3, 3e-3)]
    peaks, found = [], []
    for memory in (GpuMemory(half.machine), Full(half.machine)):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found.append(together(half, *sweep, rows=rows_of(half, ROWS), memory=memory))
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[0] > peaks[1]
    for name, own in found[1].items():
        pairs = [(a.loss or 0.0, b.loss or 0.0) for a, b in zip(found[0][name].steps, own.steps, strict=True)]
        largest = max(b for _, b in pairs)
        assert [(a, b) for a, b in pairs if abs(a - b) > 0.01 * largest] == []


def test_the_kernels_are_used_on_the_gpu(half: Base) -> None:
    """On a GPU, every norm, every MLP and the rotation of the pocket model use the fused kernels."""
    with fused_pointwise(half):
        layers = len(half.model.model.layers)
        assert sum("forward" in vars(module) for module in half.model.modules()) == 3 * layers + 1
        assert modeling_llama.apply_rotary_pos_emb.__module__ == fused_pointwise.__module__
    assert not any("forward" in vars(module) for module in half.model.modules())


def test_a_diverging_trial_in_fp16_leaves_the_others_unchanged(half: Base) -> None:
    """In fp16, the other trials of a pass are bit-identical whether or not one trial diverges."""
    others = [replace(SIX[0], rank=2 + n % 3, epochs=8) for n in range(7)]
    bad = together(half, *others[:3], replace(SIX[0], learning_rate=1e30, epochs=8), *others[3:])
    steps = len(bad["3"].steps)
    good = together(half, *others[:3], replace(SIX[0], epochs=steps / 2), *others[3:])
    assert bad["3"].status is Status.DIVERGED
    assert len(good["3"].steps) == steps
    for name in set(good) - {"3"}:
        assert bad[name].steps == good[name].steps
        assert all(tensor.equal(named(good[name])[key]) for key, tensor in named(bad[name]).items())


def answers(base: Base, folder: Path) -> tuple[list[Answer], list[Answer]]:
    """Let the base and eight adapters answer forty prompts, in one mixed batch and one model after another."""
    sweep = [replace(SIX[n % 2], learning_rate=2e-3 + 1e-3 * n, epochs=4) for n in range(8)]
    texts = [case.prompt for case in SUITE.cases][:40]
    folders: list[Path | None] = [None, *_saved(together(base, *sweep, rows=rows_of(base, 30)).values(), folder)]
    asked, decoding = prompts(*texts), Decoding(64)
    requests = [Request(str(at), read_adapter(base, at) if at else None, asked) for at in folders]
    mixed = dict(answer_requests(base, requests, decoding, progress=lambda *_: None))
    apart: list[Answer] = []
    for at in folders:
        if at is None:
            apart += ask(base, None, texts, decoding)
            continue
        with attached(base, at) as model:
            apart += ask(base, model, texts, decoding)
    return [answer for at in folders for answer in mixed[str(at)]], apart


def _saved(learned: Iterable[FusedResult], folder: Path) -> list[Path]:
    folders = []
    for one in learned:
        (folder / one.name).mkdir()
        one.save(folder / one.name)
        folders.append(folder / one.name)
    return folders


def test_in_fp32_a_mixed_batch_answers_alike(full: Base, tmp_path: Path) -> None:
    """In fp32, all 360 answers of a mixed batch equal the answers that the models give one after another."""
    mixed, apart = answers(full, tmp_path)
    assert len(apart) == 360
    assert [(a.text, a.tokens) for a in mixed] == [(a.text, a.tokens) for a in apart]


def test_in_fp16_a_mixed_batch_answers_alike_in_99_of_100(half: Base, tmp_path: Path) -> None:
    """In fp16, at most 3 of 360 answers of a mixed batch differ from those of one model after another."""
    mixed, apart = answers(half, tmp_path)
    different = [
        (a.text, b.text) for a, b in zip(mixed, apart, strict=True) if (a.text, a.tokens) != (b.text, b.tokens)
    ]
    assert len(different) <= 3, different
