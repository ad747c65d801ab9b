"""SFTTrainer trains one adapter on the pocket model, and failures that the libraries do not report are caught."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import EngineError
from harness.core.measurement import Phase
from harness.core.setting_text import NAMED_MODULES
from harness.core.settings import OPTIMIZERS, Quantization, Scheduler, Settings
from harness.core.training_outcome import Status
from harness.core.units import DeviceKind
from harness.engine.adapters import attached, save_adapter
from harness.engine.loading import Base, load_base, untouched
from harness.engine.meter import Meter
from harness.engine.trainers.sft import MAX_SKIPPED_STEPS, TrainingLog, sft_arguments
from harness.hardware.estimate import updates
from harness.models.resolving import resolve
from tests.support.short_trainings import (
    QUESTIONS,
    SHORT,
    ask,
    losses,
    one_core,
    rows_of,
    trained_once,
    trainer_of,
    training,
    weights,
)
from tests.support.trl_scripts import CASES, script

ONE_STEP = replace(SHORT, epochs=0.5)


@pytest.fixture
def own() -> Base:
    """Load a base that a test may damage."""
    return load_base(resolve("pocket"), Quantization.NF4, one_core())


@pytest.fixture
def borrowed(base: Base) -> Iterator[Base]:
    """Lend the shared base to a trainer that the test builds itself, and remove adapters afterwards."""
    with untouched(base.model):
        yield base


def test_a_layer_that_gets_no_gradient_is_refused_on_any_cpu(borrowed: Base, tmp_path: Path) -> None:
    """If adapter weights get no gradient, the training ends in its first step with their names."""
    trainer = trainer_of(borrowed, tmp_path)
    trainer.model.float()
    hook = borrowed.model.model.layers[3].register_forward_hook(lambda module, given, out: out.detach())
    try:
        with pytest.raises(EngineError, match=r"16 of 32 adapter weights got no gradient .*layers\.0"):
            trainer.train()
    finally:
        hook.remove()


# --- precision ----------------------------------------------------------------------------------------------------


def test_trl_alone_trains_in_bf16_and_the_first_step_fails(borrowed: Base, tmp_path: Path) -> None:
    """If TRL makes the adapter itself, the adapter is not in fp32, and the training ends in its first step."""
    trainer = trainer_of(borrowed, tmp_path)
    with pytest.raises(EngineError, match="32 adapter weights are not in fp32"):
        trainer.train()


def test_adapters_are_fp32_in_training_and_on_disk(base: Base, tmp_path: Path) -> None:
    """In training, every trainable parameter is in fp32, and so is every tensor of the saved file."""
    import torch
    from safetensors.torch import load_file

    with training(base, ONE_STEP) as found:
        trainable = [p for p in found.model.parameters() if p.requires_grad]
        save_adapter(found.model, tmp_path)
    saved = load_file(str(tmp_path / "adapter_model.safetensors"))
    assert len(saved) == len(trainable) == 32
    assert {p.dtype for p in (*trainable, *saved.values())} == {torch.float32}


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_kwargs` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("kind", "dtype", "expected"),
    [
        (DeviceKind.CPU, "float32", (False, False)),
        (DeviceKind.CPU, "bfloat16", (False, False)),
        (DeviceKind.CUDA, "float16", (True, False)),
        (DeviceKind.CUDA, "bfloat16", (False, True)),
    ],
)
def test_mixed_precision_is_always_explicit(
    base: Base, tmp_path: Path, kind: DeviceKind, dtype: str, expected: tuple[bool, bool]
) -> None:
    """The training arguments always set fp16 and bf16, since SFTConfig defaults to bf16, which a T4 only emulates."""
    import torch

    if dtype == "bfloat16" and kind is DeviceKind.CUDA and not torch.cuda.is_available():
        pytest.skip("transformers refuses bf16 without a GPU")
    there = replace(base, machine=replace(base.machine, kind=kind, compute_dtype=dtype))
    made = sft_arguments(there, SHORT, 0, str(tmp_path))
    assert (made.fp16, made.bf16) == expected


# --- divergence ---------------------------------------------------------------------------------------------------


def test_a_huge_learning_rate_diverges(base: Base) -> None:
    """With a learning rate of 1e30, a training stops as diverged, and the message names the step."""
    found = trained_once(base, replace(SHORT, learning_rate=1e30))
    assert (found.status, found.message) == (Status.DIVERGED, "the gradient norm was nan at step 2 of 4")
    assert [step.grad_norm is None for step in found.steps] == [False, True]


def test_a_loss_that_is_not_finite_is_divergence(own: Base) -> None:
    """If the loss is NaN, the training has diverged; SFTTrainer alone would log a loss of 0."""
    own.model.model.norm.weight.data[0] = math.inf
    found = trained_once(own)
    assert (found.status, found.message) == (Status.DIVERGED, "the loss was nan at step 1 of 4")
    assert losses(found) == [None]


def test_a_weight_that_is_not_finite_is_divergence(base: Base) -> None:
    """If a weight is not finite after the last step, the training has diverged, even if all losses were finite."""
    found = trained_once(base, replace(ONE_STEP, optimizer="sgd", learning_rate=1e30, weight_decay=1e30))
    assert all(step.loss is not None and step.grad_norm is not None for step in found.steps)
    assert found.status is Status.DIVERGED
    assert found.message.endswith("is not finite after training")


def logged(log: TrainingLog, *norms: float) -> str:
    for norm in norms:
        number = len(log.steps) + 1
        log.add(number, 99, {"loss": 1.0, "grad_norm": norm, "learning_rate": 1e-3, "epoch": 0.1})
    return log.diverged


def test_fp16_may_skip_sixteen_steps() -> None:
    """In fp16, sixteen skipped steps in a row are allowed, and the seventeenth means divergence."""
    log = TrainingLog(allow_skipped=True, progress=lambda step, total: None)
    assert logged(log, *[math.inf] * MAX_SKIPPED_STEPS, 1.0, *[math.inf] * MAX_SKIPPED_STEPS) == ""
    assert logged(log, math.inf) == "the gradient norm was inf at step 34 of 99"


def test_a_training_of_skipped_steps_is_divergence(borrowed: Base, tmp_path: Path) -> None:
    """If every step of a training in fp16 was skipped, the training has diverged."""
    log = TrainingLog(allow_skipped=True, progress=lambda step, total: None)
    logged(log, math.inf, math.inf, math.nan)
    log.check_end(trainer_of(borrowed, tmp_path).model)
    assert log.diverged == "the gradient norm was not finite in any of 3 steps"


# --- what settings mean -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "accumulation", "epochs"),
    [(8, 1, 2), (3, 1, 1), (3, 2, 2), (1, 3, 1), (2, 5, 1.5), (4, 1, 0.3), (4, 1, 1.25), (100, 2, 3), (3, 3, 0.01)],
)
def test_steps_are_counted_as_planned(base: Base, batch: int, accumulation: int, epochs: float) -> None:
    """A training takes as many steps as `harness plan` shows, even if batches or epochs are incomplete."""
    settings = replace(SHORT, rank=1, batch_size=batch, gradient_accumulation=accumulation, epochs=epochs)
    assert len(trained_once(base, settings).steps) == updates(settings, rows=8)


@pytest.mark.parametrize(
    ("warmup", "rates"),
    [
        (0.0, [1.0, 1.0, 1.0, 1.0]),
        (0.5, [0.0, 0.5, 1.0, 1.0]),
        (0.3, [0.0, 0.5, 1.0, 1.0]),
        (1.0, [0.0, 1.0, 1.0, 1.0]),
        (2.0, [0.0, 0.5, 1.0, 1.0]),
    ],
)
def test_warmup_is_a_share_below_one_and_a_count_from_one(base: Base, warmup: float, rates: list[float]) -> None:
    """A warmup below 1 is a share of all steps, rounded up; a warmup of 1 or more is a number of steps."""
    settings = replace(SHORT, warmup=warmup, scheduler=Scheduler.CONSTANT_WITH_WARMUP)
    found = trained_once(base, settings)
    assert [step.learning_rate / SHORT.learning_rate for step in found.steps] == rates


@pytest.mark.parametrize(("changed", "arguments", "lora"), CASES)
def test_a_setting_equals_a_script_with_trl_alone(
    base: Base, changed: dict[str, Any], arguments: dict[str, Any], lora: dict[str, Any], tmp_path: Path
) -> None:
    """With each setting, adapter, losses and learning rates equal those of a script that calls TRL and PEFT by hand."""
    with training(base, replace(SHORT, warmup=1, weight_decay=0.1, **changed)) as found:
        expected, steps = weights(found.model), found.steps
    with untouched(base.model):
        trainer = script(base, tmp_path, arguments=arguments, lora=lora, ratio=changed.get("loraplus_lr_ratio", 0))
        own = weights(trainer.model)
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [(log["loss"], log["learning_rate"]) for log in logs] == [(step.loss, step.learning_rate) for step in steps]
    assert own.keys() == expected.keys()
    assert all(own[name].equal(expected[name]) for name in own)


def test_an_adapter_with_dora_answers_as_it_was_trained(base: Base, tmp_path: Path) -> None:
    """A saved adapter with DoRA has its magnitudes in fp32; attached again, it gives the answers of the training."""
    import torch
    from safetensors.torch import load_file

    with training(base, replace(SHORT, use_dora=True)) as found:
        expected = [answer.text for answer in ask(base, found.model.eval(), QUESTIONS[:3])]
        save_adapter(found.model, tmp_path)
    saved = load_file(str(tmp_path / "adapter_model.safetensors"))
    magnitudes = [tensor for name, tensor in saved.items() if "magnitude" in name]
    assert len(magnitudes) * 2 == len(saved) - len(magnitudes)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    with attached(base, tmp_path) as model:
        assert [answer.text for answer in ask(base, model, QUESTIONS[:3])] == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_of_the_grid_trains_on_a_cpu(base: Base, optimizer: str) -> None:
    """Every optimizer that a grid can name trains on a CPU, where paged optimizers work without paging."""
    rate = 0.5 if optimizer == "sgd" else SHORT.learning_rate
    settings = replace(SHORT, optimizer=optimizer, learning_rate=rate)
    assert falls(losses(trained_once(base, settings, rows=rows_of(base, 4))))


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")
def test_the_optimizer_of_the_t4_grid_trains_on_a_cpu(base: Base) -> None:
    """Paged 8-bit AdamW, the optimizer of the workshop's grid `t4`, trains on a CPU."""
    settings = replace(SHORT, optimizer="paged_adamw_8bit")
    assert falls(losses(trained_once(base, settings, rows=rows_of(base, 4))))


@pytest.mark.parametrize(
    "settings",
    [
        replace(SHORT, dropout=0.2),
        replace(SHORT, rslora=True),
        replace(SHORT, target_modules="all-linear"),
        replace(SHORT, target_modules=NAMED_MODULES["attention"]),
        replace(SHORT, target_modules=("down_proj",)),
        replace(SHORT, gradient_accumulation=2, batch_size=2, epochs=2),
        replace(SHORT, max_grad_norm=0.0),
        replace(SHORT, weight_decay=0.1),
    ],
    ids=["dropout", "rslora", "all-linear", "attention", "down_proj", "accumulation", "no clipping", "weight decay"],
)
def test_every_setting_trains(base: Base, settings: Settings) -> None:
    """With each setting, the loss falls and every step logs a gradient norm."""
    found = trained_once(base, settings, rows=rows_of(base, 4))
    assert falls(losses(found))
    assert all(step.grad_norm is not None for step in found.steps)


def test_neftune_noise_changes_the_losses(base: Base) -> None:
    """NEFTune noise changes the losses of a training, and a noise alpha of 0 does not."""
    plain, none, noisy = (
        [step.loss for step in trained_once(base, settings).steps]
        for settings in (SHORT, replace(SHORT, neftune_noise_alpha=0.0), replace(SHORT, neftune_noise_alpha=5.0))
    )
    assert plain == none
    assert plain != noisy


def test_an_unquantised_base_trains() -> None:
    """An unquantised base can be trained, and refuses a trial that asks for NF4."""
    bare = load_base(resolve("pocket"), Quantization.NONE, one_core())
    settings = replace(SHORT, quantization=Quantization.NONE)
    assert falls(losses(trained_once(bare, settings, rows=rows_of(bare, 4))))
    with pytest.raises(EngineError, match="the base is none and the trial asks for nf4"), training(bare):
        pass


def test_packing_learns_the_same_tokens_in_fewer_steps(base: Base) -> None:
    """Packing trains on the same tokens in fewer steps, and packed rows do not attend to each other.

    The loss of a packed step is therefore the mean of the unpacked steps' losses, weighted by supervised tokens.
    """
    still = replace(SHORT, learning_rate=1e-12, epochs=1)
    plain, packed = trained_once(base, still), trained_once(base, replace(still, packing=True))
    assert (len(plain.steps), len(packed.steps)) == (2, 1)
    assert packed.supervised_tokens == plain.supervised_tokens
    assert packed.cost.tokens == plain.cost.tokens
    first, second = plain.steps
    second_tokens = second.tokens - first.tokens
    mean = ((first.loss or 0) * first.tokens + (second.loss or 0) * second_tokens) / second.tokens
    assert packed.steps[0].loss == pytest.approx(mean, rel=1e-5)


def falls(loss: list[float | None]) -> bool:
    """Return whether the second of two losses is smaller than the first."""
    first, second = loss
    return first is not None and second is not None and second < first


# --- the log, and repeatability -----------------------------------------------------------------------------------


def test_every_step_is_logged(base: Base) -> None:
    """The log of each step has loss, learning rate, gradient norm, epoch and the supervised tokens up to that step."""
    found = trained_once(base)
    supervised = sum(row.supervised for row in rows_of(base))
    assert [step.step for step in found.steps] == [1, 2, 3, 4]
    assert [step.epoch for step in found.steps] == [0.5, 1.0, 1.5, 2.0]
    assert all(step.loss and step.grad_norm for step in found.steps)
    assert [step.learning_rate for step in found.steps] == pytest.approx([5e-3, 3.75e-3, 2.5e-3, 1.25e-3])
    tokens = [step.tokens for step in found.steps]
    assert tokens == sorted(tokens)
    assert (tokens[1], tokens[3], found.supervised_tokens) == (supervised, 2 * supervised, 2 * supervised)
    assert found.cost.tokens == 2 * sum(len(row.input_ids) for row in rows_of(base))
    assert found.trainable_parameters == 8 * 2 * (256 + 256) * SHORT.rank


def test_progress_is_reported_step_by_step(base: Base) -> None:
    """Progress is reported once per step, together with the total number of steps."""
    from harness.engine.trainers.sft import trained

    told: list[tuple[int, int]] = []
    with trained(base, rows_of(base), SHORT, 0, progress=lambda s, n: told.append((s.step, n))):
        assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_same_seed_gives_the_same_adapter(base: Base) -> None:
    """With dropout, the same seed gives a bit-identical adapter, and another seed gives another adapter."""
    made, answers = [], []
    for seed in (3, 3, 4):
        with training(base, replace(SHORT, dropout=0.1), seed=seed) as found:
            made.append(weights(found.model))
            answers.append(ask(base, found.model.eval()))
    assert made[0].keys() == made[1].keys()
    assert all(made[0][name].equal(made[1][name]) for name in made[0])
    assert answers[0] == answers[1]
    assert not any(made[0][name].equal(made[2][name]) for name in made[0])


def test_no_checkpoint_is_written(borrowed: Base, tmp_path: Path) -> None:
    """A training writes no checkpoint."""
    trainer = trainer_of(borrowed, tmp_path)
    trainer.model.float()
    trainer.train()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_finished_training_is_collected(base: Base) -> None:
    """A finished trainer, which refers to itself, is garbage-collected before the next phase is measured."""
    import weakref

    with training(base, ONE_STEP) as found:
        left = weakref.ref(next(p for p in found.model.parameters() if p.requires_grad))
    del found
    with Meter(base.machine) as meter:
        assert left() is None
    assert meter.cost(Phase.TRAIN, 0).peak_resident.value > 0


def test_the_order_of_rows_depends_on_the_seed(base: Base) -> None:
    """The order of rows differs between epochs and between seeds."""
    orders = {}
    singly = replace(SHORT, batch_size=1, rank=1)
    rows = rows_of(base, 6)
    for seed in (0, 1):
        tokens = [step.tokens for step in trained_once(base, singly, rows=rows, seed=seed).steps]
        orders[seed] = [after - before for before, after in itertools.pairwise([0, *tokens])]
    sizes = sorted(row.supervised for row in rows)
    assert all(sorted(order[:6]) == sorted(order[6:]) == sizes for order in orders.values())
    assert orders[0][:6] != orders[0][6:]
    assert orders[0] != orders[1]
