"""Fused training gives each trial the result that SFTTrainer gives the trial alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.core.errors import EngineError
from harness.core.settings import Quantization, Scheduler, Settings
from harness.core.training_outcome import Status
from harness.engine.adapters import attached
from harness.engine.loading import Base, checkpoint
from harness.engine.tokenization import Row
from harness.engine.trainers.fused.layer import StackedLinear
from harness.engine.trainers.fused.training import FusedResult, train_together
from harness.engine.trainers.protocol import TrialInput
from tests.support.exact_trainings import Tiny, exact, exactly_alone, tiny_gpt2, tiny_llama
from tests.support.fused_passes import SIX, distance, figures, named, together, without_floats
from tests.support.short_trainings import OPTIONS, QUESTIONS, SHORT, ask, rows_of, training, weights


@pytest.mark.slow
def test_each_fused_trial_matches_sfttrainer(base: Base) -> None:
    """Six different fused trials have SFTTrainer's answers, and losses and adapters within 0.1% of SFTTrainer's."""
    rows = rows_of(base, 10)
    made = together(base, *SIX, rows=rows)
    for number, settings in enumerate(SIX):
        own = made[str(number)]
        with training(base, settings, rows=rows, seed=number) as alone:
            assert distance(named(own), weights(alone.model)) < 1e-3
            expected = ask(base, alone.model.eval(), QUESTIONS[:3])
        assert (own.status, own.message) == (alone.status, alone.message)
        assert without_floats(own.steps) == without_floats(alone.steps)
        assert figures(own.steps) == pytest.approx(figures(alone.steps), rel=1e-3, abs=1e-4)
        counted = (own.trainable_parameters, own.supervised_tokens, own.tokens)
        assert counted == (alone.trainable_parameters, alone.supervised_tokens, alone.cost.tokens)
        assert answers_of(base, own, QUESTIONS[:3]) == [(a.text, a.tokens) for a in expected]


def answers_of(base: Base, learned: FusedResult, texts: Sequence[str]) -> list[tuple[str, int]]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        learned.save(Path(folder))
        with attached(base, Path(folder)) as model:
            return [(a.text, a.tokens) for a in ask(base, model, texts)]


def test_in_double_precision_each_fused_trial_equals_sfttrainers(tiny: Tiny, tmp_path: Path) -> None:
    """In double precision, losses, gradient norms and adapters of six fused trials are within 1e-9 of SFTTrainer's."""
    check_equal(tiny, [replace(settings, quantization=Quantization.NONE) for settings in SIX], tmp_path)


def check_equal(tiny: Tiny, sweep: Sequence[Settings], folder: Path) -> None:
    """Check that losses, gradient norms and adapters are within 1e-9 of SFTTrainer's."""
    made = together(tiny.base, *sweep, rows=tiny.rows, log_probabilities=exact)
    for number, settings in enumerate(sweep):
        expected, steps = exactly_alone(tiny, settings, number, folder)
        own = made[str(number)]
        assert distance(named(own), expected) < 1e-9
        assert without_floats(own.steps) == without_floats(steps)
        assert figures(own.steps) == pytest.approx(figures(steps), rel=1e-9, abs=0)
        assert next(iter(expected.values())).dtype.itemsize == 8


def test_every_schedule_equals_sfttrainers(tiny: Tiny, tmp_path: Path) -> None:
    """In double precision, a fused trial with each schedule is within 1e-9 of SFTTrainer's, with and without warmup."""
    usual = replace(SHORT, quantization=Quantization.NONE, batch_size=3)
    with_options = [
        replace(usual, scheduler=each, lr_scheduler_kwargs=tuple(OPTIONS.get(each, {}).items())) for each in Scheduler
    ]
    check_equal(tiny, [replace(each, warmup=warmup) for each in with_options for warmup in (0, 2)], tmp_path)


def test_loraplus_equals_sfttrainers(tiny: Tiny, tmp_path: Path) -> None:
    """In double precision, LoRA+ with PyTorch's and other optimizers is within 1e-9 of SFTTrainer with PEFT's."""
    usual = replace(SHORT, quantization=Quantization.NONE, batch_size=3, weight_decay=0.1)
    plus = [
        replace(usual, loraplus_lr_ratio=ratio, optimizer=optimizer)
        for ratio, optimizer in ((16.0, "adamw_torch"), (2.5, "adamw_torch_fused"), (4.0, "adafactor"), (8.0, "sgd"))
    ]
    check_equal(tiny, [usual, *plus], tmp_path)


def test_chosen_layers_equal_sfttrainers(tiny: Tiny, tmp_path: Path) -> None:
    """In double precision, trials whose adapters are in different layers are within 1e-9 of SFTTrainer's."""
    usual = replace(SHORT, quantization=Quantization.NONE, batch_size=3)
    chosen = [replace(usual, layers_to_transform=layers) for layers in ((0,), (1,))]
    check_equal(tiny, [usual, *chosen, replace(usual, target_modules=r".*\.0\..*\.(q|up)_proj")], tmp_path)


ALIKE = [
    replace(
        SHORT, quantization=Quantization.NONE, batch_size=3, target_modules="all-linear", learning_rate=rate, alpha=a
    )
    for rate, a in ((5e-3, 8), (1e-3, 2), (2e-2, 64))
]
"""Trials that differ in learning rate and scaling only, so that each has as many rows in a pass as the others."""


def test_trials_of_one_shape_equal_sfttrainers(tiny: Tiny, tmp_path: Path) -> None:
    """In double precision, trials of the same rank, modules and batch size are within 1e-9 of SFTTrainer's."""
    check_equal(tiny, ALIKE, tmp_path)


def test_trials_of_one_shape_that_leave_equal_sfttrainers(tiny: Tiny, tmp_path: Path) -> None:
    """Trials of one shape are within 1e-9 of SFTTrainer's if they end one after another."""
    check_equal(tiny, [replace(settings, epochs=0.5 + n) for n, settings in enumerate(ALIKE)], tmp_path)


def test_trials_on_layers_with_biases_equal_sfttrainers(base: Base, tmp_path: Path) -> None:
    """On a base whose linear layers have biases, even and uneven trials are within 1e-9 of SFTTrainer's."""
    biased = tiny_llama(base, biases=True)
    check_equal(biased, ALIKE, tmp_path)
    check_equal(biased, [replace(settings, quantization=Quantization.NONE) for settings in SIX[:3]], tmp_path)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
def test_trials_on_other_layers_than_linear_equal_sfttrainers(base: Base, tmp_path: Path) -> None:
    """On GPT-2, whose layers are no `torch.nn.Linear`, even and uneven trials are within 1e-9 of SFTTrainer's."""
    other = tiny_gpt2(base)
    check_equal(other, ALIKE, tmp_path)
    check_equal(other, [ALIKE[0], replace(ALIKE[1], rank=2, batch_size=2, target_modules=("c_fc",))], tmp_path)


@pytest.mark.parametrize("pass_tokens", [16, 64])
def test_the_division_into_passes_changes_nothing(tiny: Tiny, pass_tokens: int) -> None:
    """Adapters differ by less than 1e-9 whether the rows of a step go through the model in one pass or in several."""
    pair = [replace(settings, quantization=Quantization.NONE, batch_size=5) for settings in SIX[:3]]
    whole, parts = (
        together(tiny.base, *pair, rows=tiny.rows, log_probabilities=exact, pass_tokens=tokens)
        for tokens in (10_000, pass_tokens)
    )
    for name in whole:
        assert distance(named(parts[name]), named(whole[name])) < 1e-9


def test_a_round_that_does_not_fit_is_taken_in_smaller_passes(tiny: Tiny) -> None:
    """If memory runs out in a step, the step starts over in smaller passes, and no gradient counts twice."""
    pair = [replace(settings, quantization=Quantization.NONE, batch_size=5) for settings in SIX[:3]]
    longest = max(len(row.input_ids) for row in tiny.rows)
    sizes: list[int] = []

    def short_of_memory(model: Any, ids: Any, labels: Any) -> Any:
        sizes.append(ids.numel())
        # The first pass fits and adds its gradients; memory runs out in the second pass.
        if len(sizes) > 1 and ids.numel() > 2 * longest:
            raise torch.OutOfMemoryError
        return exact(model, ids, labels)

    def never_enough(*_: Any) -> Any:
        raise torch.OutOfMemoryError

    whole, parts = (
        together(tiny.base, *pair, rows=tiny.rows, log_probabilities=way, pass_tokens=6 * longest)
        for way in (exact, short_of_memory)
    )
    assert sizes[0] > 2 * longest
    assert max(sizes[-3:]) <= 2 * longest
    for name in whole:
        assert distance(named(parts[name]), named(whole[name])) < 1e-9
        assert figures(parts[name].steps) == pytest.approx(figures(whole[name].steps), rel=1e-9, abs=0)
    with pytest.raises(torch.OutOfMemoryError):
        together(tiny.base, *pair, rows=tiny.rows, log_probabilities=never_enough)


def test_checkpointing_changes_nothing(tiny: Tiny) -> None:
    """Adapters are bit-identical with and without gradient checkpointing, even with dropout."""
    model = tiny.base.model
    three = [replace(s, quantization=Quantization.NONE, dropout=0.3 * n) for n, s in enumerate(SIX[:3])]
    plain = together(tiny.base, *three, rows=tiny.rows, log_probabilities=exact)

    def checkpointed(given: Any, ids: Any, labels: Any) -> Any:
        if not given.is_gradient_checkpointing:
            checkpoint(given)
        return exact(given, ids, labels)

    again = together(tiny.base, *three, rows=tiny.rows, log_probabilities=checkpointed)
    for name, one in plain.items():
        assert all(again_own.equal(named(one)[key]) for key, again_own in named(again[name]).items())
    assert not model.is_gradient_checkpointing


def test_running_out_of_memory_after_adapters_are_on_the_base_removes_them(base: Base) -> None:
    """If memory runs out while a fused training is set up, no adapter stays on the base.

    Later adapters would wrap leftover ones, and would be saved under names that fit no model.
    """
    short = ShortOfMemory(base.model, base.tokenizer, base.machine, base.quantization)
    with pytest.raises(torch.OutOfMemoryError):
        together(short, SHORT)
    assert not has_stack(base)


class ShortOfMemory(Base):
    """A base whose device has no memory left once adapters are stacked on it."""

    @property
    def device(self) -> torch.device:
        if has_stack(self):
            raise torch.OutOfMemoryError
        return super().device


def has_stack(base: Base) -> bool:
    return any(isinstance(module, StackedLinear) for module in base.model.modules())


def test_a_diverging_trial_leaves_the_others_unchanged(base: Base) -> None:
    """The other four trials of a pass are bit-identical whether the fifth diverges or ends normally."""
    others = [replace(SHORT, rank=2 + n % 3) for n in range(4)]
    wild, healthy = replace(SHORT, learning_rate=1e30), replace(SHORT, epochs=1)
    bad = together(base, *others[:3], wild, *others[3:])
    good = together(base, *others[:3], healthy, *others[3:])
    assert (bad["3"].status, bad["3"].message) == (Status.DIVERGED, "the gradient norm was nan at step 2 of 4")
    assert (good["3"].status, len(good["3"].steps)) == (Status.SUCCEEDED, 2)
    for name in set(good) - {"3"}:
        assert bad[name].steps == good[name].steps
        assert len(good[name].steps) == 4
        assert all(tensor.equal(named(good[name])[key]) for key, tensor in named(bad[name]).items())


def test_rows_do_not_attend_to_each_other(tiny: Tiny) -> None:
    """If a trial shares a pass with another one, its losses are within 1e-12 of its losses alone."""
    settings = replace(SHORT, quantization=Quantization.NONE, batch_size=3)
    (alone,) = together(tiny.base, settings, rows=tiny.rows, log_probabilities=exact).values()
    longer = [Row(row.input_ids * 3, row.labels * 3) for row in tiny.rows]
    trials = [TrialInput("own", tiny.rows, settings, 0), TrialInput("long", longer, replace(settings, batch_size=7), 5)]
    beside = {
        one.name: one for one in train_together(tiny.base, trials, progress=lambda *_: None, log_probabilities=exact)
    }
    assert figures(beside["own"].steps) == pytest.approx(figures(alone.steps), rel=1e-12, abs=0)


def test_a_closed_training_leaves_no_adapter(base: Base) -> None:
    """If a fused training is closed early, the base has no adapter and the attributes that it had before."""
    names = [name for name, _ in base.model.named_modules()]
    attributes = set(vars(base.model))
    trials = [
        TrialInput("short", rows_of(base), replace(SHORT, epochs=0.5), 0),
        TrialInput("long", rows_of(base), SHORT, 0),
    ]
    given_up = train_together(base, trials, progress=lambda *_: None)
    assert next(iter(given_up)).name == "short"
    given_up.close()  # type: ignore[attr-defined]
    assert [name for name, _ in base.model.named_modules()] == names
    assert set(vars(base.model)) == attributes
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_a_trial_of_another_base_is_refused(base: Base) -> None:
    """Fused training refuses a trial of another quantisation, or with packing or DoRA."""
    with pytest.raises(EngineError, match="the base is nf4 and the trial asks for none"):
        together(base, replace(SHORT, quantization=Quantization.NONE))
    with pytest.raises(EngineError, match="packing=True"):
        together(base, replace(SHORT, packing=True))
    with pytest.raises(EngineError, match="use_dora=True"):
        together(base, replace(SHORT, use_dora=True))


def test_an_adapter_below_a_layer_that_passes_no_gradient_ends_the_pass(base: Base) -> None:
    """If an adapter gets no gradient, the fused training ends with an error in its first step."""
    hook = base.model.model.layers[1].register_forward_pre_hook(lambda _, given: (given[0].detach(), *given[1:]))
    try:
        with pytest.raises(EngineError, match="got no gradient in the first step"):
            together(base, SIX[0])
    finally:
        hook.remove()


def test_a_base_in_another_precision_is_refused(tiny: Tiny) -> None:
    """Fused training refuses a base whose embeddings and head are not in the compute dtype."""
    other = replace(tiny.base, machine=replace(tiny.base.machine, compute_dtype="float32"))
    trials = [TrialInput("one", tiny.rows, replace(SIX[0], quantization=Quantization.NONE), 0)]
    with pytest.raises(EngineError, match="in an unexpected precision"):
        list(train_together(other, trials, progress=lambda *_: None))
