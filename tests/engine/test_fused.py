"""Fused training gives each trial the result that SFTTrainer gives it alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from harness.core.errors import EngineError
from harness.core.settings import Quantization, Scheduler, Settings
from harness.core.training import Status, Step
from harness.engine.adapters import attached, save_adapter
from harness.engine.loading import Base, checkpoint, untouched
from harness.engine.tokenization import IGNORED, Row
from harness.engine.trainers.fused.concurrency import adapter_weights, concurrency
from harness.engine.trainers.fused.initialisation import initial_adapter, initial_adapters
from harness.engine.trainers.fused.layer import StackedLinear
from harness.engine.trainers.fused.passes import even_passes, padded, passes
from harness.engine.trainers.fused.probe import probe
from harness.engine.trainers.fused.training import FusedResult, train_together
from harness.engine.trainers.fused.trial_state import GROWTH_INTERVAL, LossScale, windows
from harness.engine.trainers.protocol import TrialInput
from harness.engine.trainers.sft import Sft, Trained, TrainingLog, build_trainer, lora_config
from tests.support.fused_passes import SIX, distance, figures, named, together, without_floats
from tests.support.short_trainings import QUESTIONS, SHORT, ask, one_core, rows_of, training, weights

# --- equality with SFTTrainer -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_trial_is_what_sfttrainer_makes_of_it(base: Base) -> None:
    """Six different fused trials have SFTTrainer's logs and answers, and its losses and adapters to 1e-3."""
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


@dataclass(frozen=True)
class Tiny:
    """A model with a few thousand weights in double precision, and random rows of different lengths."""

    base: Base
    rows: list[Row]


@pytest.fixture(scope="module")
def tiny(base: Base) -> Tiny:
    """Make a tiny Llama in double precision, in which rounding errors are negligible."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, eos_token_id=2, bos_token_id=1,
        tie_word_embeddings=False, attn_implementation="sdpa",
    )  # fmt: skip
    model = LlamaForCausalLM(config).double().eval().requires_grad_(False)
    model.generation_config = GenerationConfig(eos_token_id=[2], pad_token_id=0, bos_token_id=1)
    rows = []
    for _ in range(11):
        length = int(torch.randint(5, 19, ()))
        ids = torch.randint(3, 96, (length,)).tolist()
        rows.append(Row(ids, [IGNORED] * 3 + ids[3:]))
    return Tiny(Base(model, base.tokenizer, replace(one_core(), compute_dtype="float64"), Quantization.NONE), rows)


def exact(model: Any, ids: Any, labels: Any) -> Any:
    """Return log-probabilities of labels[:, 1:], (rows, tokens - 1), in double precision: TRL's head rounds to fp32.

    `ids` and `labels` are (rows, tokens).
    """
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    wanted = labels[:, 1:]
    found = logits.log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None]).squeeze(-1)
    return found.masked_fill(wanted == IGNORED, 0.0)


def exactly_alone(tiny: Tiny, settings: Settings, seed: int, folder: Path) -> tuple[dict[str, Any], list[Step]]:
    """Train one trial with SFTTrainer and a loss in double precision; return its adapter and its log."""
    exactly: Counter[int] = Counter()
    with untouched(tiny.base.model):
        log = TrainingLog(allow_skipped=False, progress=lambda step, total: None)
        trainer = build_trainer(tiny.base, tiny.rows, settings, seed, str(folder), log)
        trainer.model.double()

        def loss(model: Any, inputs: dict[str, Any], *_: Any, num_items_in_batch: Any = None, **__: Any) -> Any:
            mask, ids, labels = inputs["attention_mask"], inputs["input_ids"], inputs["labels"]
            log.count(mask.sum(), (labels != IGNORED).sum())
            padded = ids.masked_fill(mask == 0, 0)
            found = -exact(model, padded, labels).sum() / num_items_in_batch
            exactly[len(log.steps) + 1] += found.item()
            return found

        trainer.compute_loss = loss
        trainer.train()
        return weights(trainer.model), [replace(step, loss=exactly[step.step]) for step in log.steps]


def test_in_double_precision_each_trial_equals_sfttrainers(tiny: Tiny, tmp_path: Path) -> None:
    """In double precision, losses, gradient norms and adapters of six fused trials equal SFTTrainer's to 1e-9."""
    six = [replace(settings, quantization=Quantization.NONE) for settings in SIX]
    made = together(tiny.base, *six, rows=tiny.rows, log_probabilities=exact)
    for number, settings in enumerate(six):
        expected, steps = exactly_alone(tiny, settings, number, tmp_path)
        own = made[str(number)]
        assert distance(named(own), expected) < 1e-9
        assert without_floats(own.steps) == without_floats(steps)
        assert figures(own.steps) == pytest.approx(figures(steps), rel=1e-9, abs=0)
        assert next(iter(expected.values())).dtype.itemsize == 8


@pytest.mark.parametrize("pass_tokens", [16, 64])
def test_the_division_into_passes_changes_nothing(tiny: Tiny, pass_tokens: int) -> None:
    """A round in one pass or in many passes gives the same adapters to 1e-9."""
    pair = [replace(settings, quantization=Quantization.NONE, batch_size=5) for settings in SIX[:3]]
    whole, parts = (
        together(tiny.base, *pair, rows=tiny.rows, log_probabilities=exact, pass_tokens=tokens)
        for tokens in (10_000, pass_tokens)
    )
    for name in whole:
        assert distance(named(parts[name]), named(whole[name])) < 1e-9


def test_a_round_that_does_not_fit_is_taken_in_smaller_passes(tiny: Tiny) -> None:
    """If memory runs out, the round is repeated in smaller passes, and no gradient counts twice."""
    pair = [replace(settings, quantization=Quantization.NONE, batch_size=5) for settings in SIX[:3]]
    longest = max(len(row.input_ids) for row in tiny.rows)
    sizes: list[int] = []

    def short_of_memory(model: Any, ids: Any, labels: Any) -> Any:
        sizes.append(ids.numel())
        # The second pass is the first that does not fit; the first one has already added gradients.
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
    """Gradient checkpointing gives bit-identical adapters, also with dropout."""
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


@pytest.mark.parametrize(
    ("operation", "call"),
    [(torch.Tensor.new_zeros, 9), (torch.empty, 1)],
    ids=["a layer's adapters", "room for gradients"],
)
def test_memory_that_runs_out_while_adapters_are_put_on_the_base_leaves_it_bare(
    base: Base, operation: Any, call: int
) -> None:
    """Else the next ones would lie on the layers of these, and be saved under names that no other model has."""
    with pytest.raises(torch.OutOfMemoryError), ShortOfMemory(operation, call):
        together(base, SHORT)
    assert not [name for name, module in base.model.named_modules() if isinstance(module, StackedLinear)]


class ShortOfMemory(TorchFunctionMode):
    """Runs out of memory at the given call of an operation of PyTorch."""

    def __init__(self, operation: Any, call: int) -> None:
        super().__init__()
        self._operation, self._left = operation, call

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._left -= func is self._operation
        if not self._left:
            raise torch.OutOfMemoryError
        return func(*args, **(kwargs or {}))


# --- what a trial costs alone -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spy(Sft):
    """A trainer that records the row lengths of every step."""

    seen: list[list[int]] = field(default_factory=list)

    def train(self, base: Base, trials: Sequence[TrialInput], **more: Any) -> Generator[Trained]:
        for trial in trials:
            order = windows(len(trial.rows), trial.settings, trial.seed)
            self.seen.extend([len(trial.rows[row].input_ids) for row in window.rows] for window in order)
        yield from super().train(base, trials, **more)


def test_a_probe_makes_whole_steps_then_the_longest_rows_then_an_epochs_end(base: Base) -> None:
    """A probe takes full steps, then one with the longest rows, then one with the rows left over in an epoch."""
    rows = [Row([5] * n, [5] * n) for n in range(10, 20)]
    given = replace(SHORT, batch_size=2, gradient_accumulation=2, epochs=3)
    spy = Spy()
    found, seen = probe(base, rows, given, spy), spy.seen
    assert [len(step) for step in seen] == [4, 4, 4, 4, 2]
    assert seen[0] == seen[1] == seen[2]
    assert sorted(seen[3]) == [16, 17, 18, 19]
    assert (found.steps, found.per_epoch) == (5, 3)
    assert found.alone(7, 100).note == "alone, from a solo probe of 5 steps, scaled to 7"
    known = replace(found, full=2.0, last=1.0)
    assert [known.alone(steps, 100).seconds.value for steps in (2, 3, 7, 9)] == [4.0, 5.0, 12.0, 15.0]


def test_a_probe_takes_no_more_rows_than_there_are(base: Base) -> None:
    """If a batch is larger than the number of rows, each step of a probe has all rows."""
    rows, spy = [Row([5] * n, [5] * n) for n in (4, 5, 6)], Spy()
    found = probe(base, rows, replace(SHORT, batch_size=8), spy)
    assert [len(step) for step in spy.seen] == [3, 3, 3]
    assert (found.per_epoch, found.last) == (1, found.full)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
def test_concurrency_counts_weights_of_other_layers_than_linear() -> None:
    """The predicted number of adapter weights equals PEFT's for GPT-2's Conv1D layers and for an embedding."""
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=64, n_positions=32, bos_token_id=1, eos_token_id=2
    )
    on = Base(transformers.GPT2LMHeadModel(config), None, one_core(), Quantization.NONE)
    for targets in (("c_attn", "c_fc"), ("wte",), "all-linear"):
        settings = replace(SHORT, rank=3, target_modules=targets, quantization=Quantization.NONE)
        wrapped = peft.get_peft_model(transformers.GPT2LMHeadModel(config), lora_config(settings))
        assert adapter_weights(on, settings) == wrapped.get_nb_trainable_parameters()[0]
        assert concurrency(on, [settings] * 3, 64) == 3


# --- neighbours ---------------------------------------------------------------------------------------------------


def test_a_diverging_trial_leaves_the_others_unchanged(base: Base) -> None:
    """A diverging trial leaves seven others bit-identical to a pass in which it ended normally."""
    others = [replace(SHORT, rank=2 + n % 3) for n in range(7)]
    wild, healthy = replace(SHORT, learning_rate=1e30), replace(SHORT, epochs=1)
    bad = together(base, *others[:3], wild, *others[3:])
    good = together(base, *others[:3], healthy, *others[3:])
    assert (bad["3"].status, bad["3"].message) == (Status.DIVERGED, "the gradient norm was nan at step 2 of 4")
    assert (good["3"].status, len(good["3"].steps)) == (Status.SUCCEEDED, 2)
    for name in set(good) - {"3"}:
        assert bad[name].steps == good[name].steps
        assert len(good[name].steps) == 4
        assert all(tensor.equal(named(good[name])[key]) for key, tensor in named(bad[name]).items())


def test_rows_do_not_see_each_other(tiny: Tiny) -> None:
    """A trial's losses in a pass with another trial equal those of the trial alone to 1e-12."""
    settings = replace(SHORT, quantization=Quantization.NONE, batch_size=3)
    (alone,) = together(tiny.base, settings, rows=tiny.rows, log_probabilities=exact).values()
    longer = [Row(row.input_ids * 3, row.labels * 3) for row in tiny.rows]
    trials = [TrialInput("own", tiny.rows, settings, 0), TrialInput("long", longer, replace(settings, batch_size=7), 5)]
    beside = {
        one.name: one for one in train_together(tiny.base, trials, progress=lambda *_: None, log_probabilities=exact)
    }
    assert figures(beside["own"].steps) == pytest.approx(figures(alone.steps), rel=1e-12, abs=0)


def test_the_base_is_bare_afterwards(base: Base) -> None:
    """The base has no adapter and its old attributes after a fused training that was closed early."""
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
    """A trial with another quantisation, or with packing, is refused."""
    with pytest.raises(EngineError, match="the base is nf4 and the trial asks for none"):
        together(base, replace(SHORT, quantization=Quantization.NONE))
    with pytest.raises(EngineError, match="packing=True"):
        together(base, replace(SHORT, packing=True))


# --- what is saved ------------------------------------------------------------------------------------------------


def test_saved_files_have_the_form_of_sfttrainers(base: Base, tmp_path: Path) -> None:
    """Fused training saves the files, configuration and tensor names, shapes and dtypes that SFTTrainer's does."""
    from safetensors import safe_open

    settings = replace(SHORT, target_modules="all-linear", rslora=True, dropout=0.1, epochs=0.5)
    (own,) = together(base, settings).values()
    for name in ("fused", "reference"):
        (tmp_path / name).mkdir()
    own.save(tmp_path / "fused")
    with training(base, settings) as found:
        save_adapter(found.model, tmp_path / "reference")
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("fused", "reference")]
    assert files[0] == files[1]

    def config(name: str) -> dict[str, Any]:
        held = json.loads((tmp_path / name / "adapter_config.json").read_text(encoding="utf-8"))
        return held | {"target_modules": sorted(held["target_modules"])}

    def header(name: str) -> tuple[Any, ...]:
        with safe_open(tmp_path / name / "adapter_model.safetensors", "pt") as held:  # type: ignore[no-untyped-call]
            slices = {key: held.get_slice(key) for key in held.keys()}  # noqa: SIM118
            shapes = {key: (one.get_shape(), one.get_dtype()) for key, one in slices.items()}
            return held.metadata(), shapes

    assert config("fused") == config("reference")
    assert header("fused") == header("reference")


# --- the parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "accumulation", "epochs"), [(8, 1, 2), (3, 2, 2), (1, 3, 1), (2, 5, 1.5), (4, 1, 0.3), (100, 2, 3)]
)
def test_rows_come_in_the_trainers_order(
    base: Base, tmp_path: Path, batch: int, accumulation: int, epochs: float
) -> None:
    """`windows` yields the batches of SFTTrainer's data loader, in every epoch and with incomplete ones."""
    settings = replace(SHORT, batch_size=batch, gradient_accumulation=accumulation, epochs=epochs)
    rows = [Row([7, 8, 9, 10 + number], [IGNORED, 8, 9, 10 + number]) for number in range(11)]
    with untouched(base.model):
        log = TrainingLog(allow_skipped=False, progress=lambda step, total: None)
        trainer = build_trainer(base, rows, settings, 3, str(tmp_path), log)
        loader = trainer.get_train_dataloader()
        batches = []
        for epoch in range(math.ceil(epochs)):
            loader.set_epoch(epoch)
            batches.append([[ids[3] - 10 for ids in one["input_ids"].tolist()] for one in loader])
    steps = [
        tuple(row for one in own[start : start + accumulation] for row in one)
        for own in batches
        for start in range(0, len(own), accumulation)
    ]
    mine = [window.rows for window in windows(11, settings, 3)]
    assert mine == steps[: len(mine)]
    assert len(mine) == math.ceil(epochs * math.ceil(math.ceil(11 / batch) / accumulation))


def test_the_loss_scale_moves_as_pytorchs(base: Base) -> None:
    """The loss scale equals torch.amp.GradScaler's: halved at an overflow, doubled after 2000 steps without one."""
    import torch

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    own = LossScale(used=True)
    for step in range(GROWTH_INTERVAL + 40):
        overflow = step in (0, 1, 7)
        weight.grad = None
        scaler.scale(weight.sum()).backward()  # type: ignore[no-untyped-call]
        if overflow:
            weight.grad = torch.tensor([math.inf])
        scaler.step(optimizer)
        scaler.update()
        own.update(skipped=overflow)
        assert own.value == scaler.get_scale()


def test_dropout_is_that_of_sfttrainer_in_distribution(tiny: Tiny, tmp_path: Path) -> None:
    """Losses under 45 dropout masks have SFTTrainer's mean and variance (Welch's and Levene's tests)."""
    from scipy import stats

    settings = replace(
        SHORT, quantization=Quantization.NONE, dropout=0.5, batch_size=11, epochs=60, learning_rate=0.05,
        scheduler=Scheduler.CONSTANT, target_modules="all-linear",
    )  # fmt: skip
    ((own,), (_, alone)) = (
        tuple(together(tiny.base, settings, rows=tiny.rows, log_probabilities=exact).values()),
        exactly_alone(tiny, settings, 0, tmp_path),
    )
    mine, theirs = ([step.loss for step in steps[-45:]] for steps in (own.steps, alone))
    assert own.steps[0].loss == pytest.approx(alone[0].loss, rel=1e-9)
    assert own.steps[5].loss != pytest.approx(alone[5].loss, rel=1e-9)
    assert stats.ttest_ind(mine, theirs, equal_var=False).pvalue > 0.001
    assert stats.levene(mine, theirs).pvalue > 0.001


def test_dropout_masks_do_not_depend_on_other_trials(tiny: Tiny) -> None:
    """A trial's dropout masks do not depend on the other trials of the pass."""
    settings = replace(SHORT, quantization=Quantization.NONE, dropout=0.3, batch_size=3)
    (alone,) = together(tiny.base, settings, rows=tiny.rows, log_probabilities=exact).values()
    beside = together(tiny.base, settings, replace(settings, batch_size=9), rows=tiny.rows, log_probabilities=exact)
    assert figures(beside["0"].steps) == pytest.approx(figures(alone.steps), rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("lengths", "overhead", "expected"),
    [
        ([3, 3, 3], 100, [[0, 1, 2]]),
        ([3, 90, 3], 200, [[0, 2, 1]]),
        ([3, 90, 3], 1, [[0, 2], [1]]),
        ([50, 10, 52, 11, 12], 20, [[1, 3, 4], [0, 2]]),
        ([60, 60, 60], 1, [[0], [1], [2]]),
        ([200], 1, [[0]]),
    ],
)
def test_passes_are_as_cheap_as_can_be(lengths: list[int], overhead: int, expected: list[list[int]]) -> None:
    """Long rows get their own pass if their padding would cost more, and no pass exceeds the token limit."""
    found = passes(lengths, overhead=overhead, limit=300 if overhead >= 100 else 110)
    assert [sorted(group) for group in found] == [sorted(group) for group in expected]


@given(st.integers(1, 4), st.lists(st.integers(1, 40), min_size=1, max_size=6), st.randoms(), st.integers(60, 400))
def test_even_passes_have_as_many_rows_of_every_owner(owners: int, lengths: list[int], rng: Any, limit: int) -> None:
    """Even passes hold each row once and equally many rows of every owner, and respect the token limit."""
    rows = [(owner, length) for owner in range(owners) for length in lengths]
    rng.shuffle(rows)
    of, long = [owner for owner, _ in rows], [length for _, length in rows]
    found = even_passes(of, long, overhead=20, limit=limit)
    if found is None:
        assert owners * max(lengths) > limit
        return
    assert sorted(row for group in found for row in group) == list(range(len(rows)))
    assert all(len(set(Counter(of[row] for row in group).values())) == 1 for group in found)
    assert all({of[row] for row in group} == set(of) for group in found)
    assert all(padded([group], long, 0) <= limit for group in found)


def test_passes_are_not_even_where_numbers_of_rows_differ() -> None:
    """`even_passes` returns None if owners have different numbers of rows."""
    assert even_passes([0, 0, 1], [5, 5, 5], overhead=1, limit=100) is None


def test_redrawn_adapters_equal_pefts(base: Base) -> None:
    """Adapters drawn for further seeds equal PEFT's bit for bit, with their own scaling and configuration."""
    other = replace(SIX[1], learning_rate=1e-3)
    trials = [(SIX[0], 3), (SIX[1], 4), (replace(SIX[0], epochs=9), 5), (other, 6), (SIX[0], 3)]
    for found, trial in zip(initial_adapters(base, trials), trials, strict=True):
        expected = initial_adapter(base, *trial)
        assert found.adapter.scaling == expected.adapter.scaling
        assert found.config == expected.config
        assert found.adapter.weights.keys() == expected.adapter.weights.keys()
        for name, pair in expected.adapter.weights.items():
            assert all(one.equal(two) for one, two in zip(pair, found.adapter.weights[name], strict=True))


def test_an_adapter_below_a_layer_that_passes_no_gradient_ends_the_pass(base: Base) -> None:
    """An adapter that gets no gradient ends a fused training in its first step."""
    hook = base.model.model.layers[1].register_forward_pre_hook(lambda _, given: (given[0].detach(), *given[1:]))
    try:
        with pytest.raises(EngineError, match="got no gradient in the first step"):
            together(base, SIX[0])
    finally:
        hook.remove()


def test_a_base_in_another_precision_is_refused(tiny: Tiny) -> None:
    """A base whose embeddings and head are not in the compute dtype is refused before fused training."""
    other = replace(tiny.base, machine=replace(tiny.base.machine, compute_dtype="float32"))
    trials = [TrialInput("one", tiny.rows, replace(SIX[0], quantization=Quantization.NONE), 0)]
    with pytest.raises(EngineError, match="in an unexpected precision"):
        list(train_together(other, trials, progress=lambda *_: None))
