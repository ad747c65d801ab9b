"""Trains one adapter with TRL's SFTTrainer, as users of TRL do, with guards against silent failures.

This is the reference trainer: every faster trainer must give the same results.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.core import trainer_arguments
from harness.core.errors import EngineError
from harness.core.measurement import Phase, PhaseCost
from harness.core.settings import Settings
from harness.core.training_outcome import Fingerprint, Status, Step
from harness.core.units import DeviceKind
from harness.engine.adapters import save_adapter
from harness.engine.fingerprint import described, trained_on
from harness.engine.loading import (
    REPORT_BUG,
    Base,
    attention_of,
    check_precision,
    check_quantization,
    check_trainable,
    untouched,
)
from harness.engine.meter import Meter
from harness.engine.tokenization import IGNORED, Row
from harness.engine.trainers.protocol import Keep, Progress, TrainingResult, TrialInput, TrialProgress
from harness.storage.records import read_record, write_record

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import LoraConfig, PeftModel
    from trl import SFTConfig, SFTTrainer

MAX_SKIPPED_STEPS = 16
"""Number of steps in a row that may be skipped because fp16 gradients overflowed; more count as divergence.

The loss scale starts at 2**16 and is halved at each skipped step, so it is 1 after 16 of them."""


class Trainable(Protocol):
    """Anything with named parameters: a model, or one trial's part of a stack of adapters."""

    def named_parameters(self) -> Iterable[tuple[str, Any]]: ...


@dataclass(frozen=True, kw_only=True)
class Trained(TrainingResult):
    """The result of a training. `model` has the adapter until the context of `trained` ends."""

    model: PeftModel
    cost: PhaseCost
    checkpoint: Path
    """The checkpoint that the trainer wrote, if the training stopped before its end."""
    log: LogState

    def save(self, folder: Path) -> None:
        """Write the adapter into `folder` in PEFT's files."""
        save_adapter(self.model, folder)

    def save_state(self, folder: Path) -> None:
        """Copy the trainer's checkpoint into `folder`, without the files that do not change."""
        for name in _CHECKPOINT:
            for path in self.checkpoint.glob(name):
                shutil.copy2(path, folder / path.name)
        write_record(folder / LOG, self.log)


@dataclass(frozen=True)
class Sft:
    """The reference trainer: trains one trial after another with TRL's SFTTrainer."""

    def check(self, base: Base, settings: Settings) -> None:
        """Check that the base is in the quantisation that the settings name.

        Raises:
            EngineError: the base is in another quantisation.
        """
        check_quantization(base, settings)

    def arguments(self, base: Base, settings: Settings, seed: int, folder: str) -> SFTConfig:
        """Return TRL's training arguments; SFTTrainer writes its files to `folder`."""
        return sft_arguments(base, settings, seed, folder)

    def train(self, base: Base, trials: Sequence[TrialInput], *, progress: TrialProgress) -> Generator[Trained]:
        """Train one trial after another. The base has a trial's adapter until the next result is requested."""
        for trial in trials:
            with trained(
                base,
                trial.rows,
                trial.settings,
                trial.seed,
                progress=partial(progress, trial.name),
                keep=trial.keep,
                until=trial.until,
                state=trial.state,
            ) as found:
                yield replace(found, name=trial.name)


@contextlib.contextmanager
def trained(
    base: Base,
    rows: Sequence[Row],
    settings: Settings,
    seed: int,
    *,
    progress: Progress,
    keep: Keep | None = None,
    until: int = 0,
    state: Path | None = None,
) -> Iterator[Trained]:
    """Train an adapter on `rows`, and yield the result; when the context ends, the base has no adapter.

    `TrialInput` explains `until` and `state`.

    The status is SUCCEEDED, or DIVERGED if a loss, a gradient norm or a weight was not finite.

    Raises:
        EngineError: the base is in another quantisation, a weight has a wrong precision, or a guard found that an
            adapter weight would get no gradient.
        torch.OutOfMemoryError: the training does not fit in the GPU's memory.
    """
    check_quantization(base, settings)
    with untouched(base.model), tempfile.TemporaryDirectory(prefix="harness-") as folder:
        meter = Meter(base.machine)
        with meter:
            check_trainable(base.model)
            log = TrainingLog(allow_skipped=base.machine.compute_dtype == "float16", progress=progress, keep=keep)
            log.until = until
            if state:
                log.restore(read_record(state / LOG, LogState))
            trainer = build_trainer(base, rows, settings, seed, folder, log)
            use_full_precision(trainer.model)
            check_precision(trainer.model, base.machine)
            trainer.train(resume_from_checkpoint=str(state) if state else None)
            check_precision(trainer.model, base.machine)
            log.check_end(trainer.model)
        yield Trained(
            model=trainer.model,
            checkpoint=Path(folder) / f"checkpoint-{len(log.steps)}",
            log=log.state(),
            status=Status.DIVERGED if log.diverged else Status.SUCCEEDED,
            message=log.diverged,
            steps=tuple(log.steps),
            cost=_without(meter.cost(Phase.TRAIN, log.tokens), log.keeping),
            trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            supervised_tokens=log.supervised,
            tokens=log.tokens,
            keeping=log.keeping,
            fingerprint=None if log.diverged else _fingerprint(trainer, log.steps),
        )


def build_trainer(
    base: Base, rows: Sequence[Row], settings: Settings, seed: int, folder: str, log: TrainingLog
) -> SFTTrainer:
    """Return an SFTTrainer with a new adapter on the base; the trainer writes its files to `folder`."""
    from trl import SFTTrainer

    trainer = SFTTrainer(
        model=base.model,
        args=sft_arguments(base, settings, seed, folder),
        train_dataset=_dataset(rows),
        processing_class=base.tokenizer,
        peft_config=lora_config(settings),
        callbacks=[log.callback()],
    )
    if settings.loraplus_lr_ratio != 1:
        trainer.optimizer = loraplus_optimizer(trainer, settings.loraplus_lr_ratio)
    log.watch(trainer)
    return trainer


def loraplus_optimizer(trainer: SFTTrainer, ratio: float) -> Any:
    """Return the optimizer that PEFT makes for LoRA+ (Hayou et al., 2024) from the arguments of the trainer.

    The matrices B have `ratio` times the learning rate. PEFT's function has a weight decay of its own, whose default
    would replace the trainer's.
    """
    from peft.optimizers import create_loraplus_optimizer

    kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    decay = trainer.args.weight_decay
    return create_loraplus_optimizer(
        trainer.model, kind, loraplus_lr_ratio=ratio, loraplus_weight_decay=decay, **options
    )


def use_full_precision(model: PeftModel) -> None:
    """Cast every trainable parameter to fp32, because TRL casts a QLoRA adapter to bf16 in every configuration.

    In bf16 an update of less than 0.4% of a weight is lost, and fp16's gradient scaler refuses bf16 gradients.
    """
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


@dataclass(frozen=True)
class LogState:
    """What a training log has recorded when a training stops before its end."""

    steps: tuple[Step, ...]
    tokens: int
    supervised: int
    skipped: int
    epochs: int


LOG = "log.json"
"""File of `LogState` in the state of a training."""
_CHECKPOINT = ("adapter_*", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*", "trainer_state.json")
"""Files of a checkpoint of transformers' Trainer from which a training continues."""


class TrainingLog:
    """Records every step of a training and detects divergence."""

    def __init__(self, *, allow_skipped: bool, progress: Progress, keep: Keep | None = None) -> None:
        self.steps: list[Step] = []
        self.diverged = ""
        self.tokens = self.supervised = 0
        self._allowed = MAX_SKIPPED_STEPS if allow_skipped else 0
        self._skipped = 0
        self._progress = progress
        self._keep = keep
        self._epochs = 0
        self.until = 0
        """Number of epochs after which the training stops before its end; 0: at its end."""
        self.keeping = 0.0
        """Seconds spent in `keep` so far."""
        self._counts: list[Any] = []

    def state(self) -> LogState:
        """Return what a continued training needs of this log."""
        return LogState(tuple(self.steps), self.tokens, self.supervised, self._skipped, self._epochs)

    def restore(self, state: LogState) -> None:
        """Continue the log of an earlier part of the training."""
        self.steps, self.tokens, self.supervised = list(state.steps), state.tokens, state.supervised
        self._skipped, self._epochs = state.skipped, state.epochs

    def watch(self, trainer: SFTTrainer) -> None:
        """Make the trainer count the tokens of every batch; the counts stay on the device until the step is logged."""
        compute = trainer.compute_loss

        def counted(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            mask, ids = inputs.get("attention_mask"), inputs["input_ids"]  # packed rows have no padding and no mask
            seen = ids.numel() if mask is None else mask.sum()
            self.count(seen, (inputs["labels"] != IGNORED).sum())
            return compute(model, inputs, *args, **kwargs)

        trainer.compute_loss = counted

    def count(self, seen: Any, learned: Any) -> None:
        """Add the numbers of tokens, `seen`, and labels, `learned`, of a batch; both may be scalar tensors."""
        self._counts.append((seen, learned))

    def callback(self) -> Any:
        """Return the transformers callback that fills this log."""
        from transformers import TrainerCallback

        log = self

        class Callback(TrainerCallback):  # type: ignore[misc]
            def on_pre_optimizer_step(self, *_: Any, **given: Any) -> None:
                if not log.steps:
                    check_gradients(given["model"])

            def on_log(self, _: Any, state: Any, control: Any, logs: dict[str, Any], **__: Any) -> None:
                if "loss" in logs:
                    log.add(state.global_step, state.max_steps, logs)
                    control.should_training_stop = control.should_training_stop or bool(log.diverged)

            def on_epoch_end(self, _: Any, state: Any, control: Any, **given: Any) -> None:
                if not log.diverged and state.global_step < state.max_steps:
                    stops = log.end_epoch(partial(save_adapter, given["model"]))
                    control.should_save = control.should_training_stop = stops

        return Callback()

    def end_epoch(self, save: Callable[[Path], None]) -> bool:
        """Handle the end of an epoch before the last, and return whether the training stops here.

        If it goes on and there is a `keep`, it is called; `save` writes the current adapter.
        """
        self._epochs += 1
        if self._epochs == self.until:
            return True
        started = time.perf_counter()
        if self._keep:
            self._keep(self._epochs, save)
        self.keeping += time.perf_counter() - started
        return False

    def add(self, number: int, total: int, logs: dict[str, Any]) -> None:
        """Record one step from what the trainer logs, and detect divergence."""
        self.tokens += sum(int(seen) for seen, _ in self._counts)
        self.supervised += sum(int(learned) for _, learned in self._counts)
        self._counts.clear()
        loss, norm = float(logs["loss"]), float(logs["grad_norm"])
        step = Step(
            number, float(logs["epoch"]), _finite(loss), float(logs["learning_rate"]), _finite(norm), self.supervised
        )
        self.steps.append(step)
        self._skipped = 0 if math.isfinite(norm) else self._skipped + 1
        if not math.isfinite(loss):
            self.diverged = f"the loss was {loss} at step {number} of {total}"
        elif self._skipped > self._allowed:
            self.diverged = f"the gradient norm was {norm} at step {number} of {total}"
        self._progress(step, total)

    def check_end(self, model: Trainable) -> None:
        """Detect divergence that no step shows: weights that are not finite, or a training with only skipped steps."""
        import torch

        if not self.diverged and self._skipped == len(self.steps):
            self.diverged = f"the gradient norm was not finite in any of {self._skipped} steps"
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        # One number for all, as Python waits for the GPU to read it.
        if not self.diverged and not torch.nn.utils.get_total_norm(list(trained.values()), math.inf).isfinite():
            name = next(name for name, parameter in trained.items() if not parameter.isfinite().all())
            self.diverged = f"{name} is not finite after training"


def check_gradients(model: Trainable) -> None:
    """Check that the first optimizer step will train every adapter weight; to be called before that step.

    Raises:
        EngineError: a trainable parameter is not in fp32, or has no gradient and would silently stay unchanged.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    other = [name for name, p in trainable if p.dtype.itemsize < 4]
    if other:
        raise EngineError(f"{len(other)} adapter weights are not in fp32, among them {other[0]}", remedy=REPORT_BUG)
    without = [name for name, p in trainable if p.grad is None]
    if without or not trainable:
        first = f", among them {without[0]}" if without else ""
        message = f"{len(without)} of {len(trainable)} adapter weights got no gradient in the first step{first}"
        raise EngineError(message, remedy=REPORT_BUG)


def _fingerprint(trainer: SFTTrainer, steps: Sequence[Step]) -> Fingerprint:
    """Build the fingerprint from the trainer's own optimizer, its collated rows and the learning rates of its steps."""
    args = trainer.args
    return fingerprint_of(
        _collated(trainer),
        template=trainer.processing_class.chat_template,
        trainable=(name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad),
        optimizer=getattr(trainer.optimizer, "optimizer", trainer.optimizer),  # accelerate wraps it
        max_grad_norm=args.max_grad_norm,
        batch=(args.per_device_train_batch_size, args.gradient_accumulation_steps),
        steps=steps,
        attention=attention_of(trainer.model),
    )


def fingerprint_of(
    rows: Iterable[tuple[list[int], list[int]]],
    *,
    template: str,
    trainable: Iterable[str],
    optimizer: Any,
    max_grad_norm: float,
    batch: tuple[int, int],
    steps: Sequence[Step],
    attention: str,
) -> Fingerprint:
    """Build the fingerprint of a training.

    `rows` are token ids and labels, `optimizer` is a torch optimizer, and `batch` is (rows in a batch, batches in a
    step). `attention` is empty for SDPA.
    """
    # Not from `optimizer.defaults`: some values, such as the trainer's weight decay, are only in the groups.
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups if group["params"]]
    ratios = [group["initial_lr"] / groups[0]["initial_lr"] for group in groups if "initial_lr" in group]
    given = {
        **{key: _one(group.get(key) for group in groups) for key in groups[0]},
        **({"lr_ratios": "x".join(f"{ratio:g}" for ratio in ratios)} if len(set(ratios)) > 1 else {}),
        "max_grad_norm": max_grad_norm,
        "batch": "x".join(map(str, batch)),
    }
    return trained_on(
        rows,
        template=template,
        trainable=trainable,
        optimizer=described(type(optimizer).__name__, given),
        rates=[step.learning_rate for step in steps],
        attention=attention,
    )


def _one(values: Iterable[Any]) -> Any:
    """Return the value if all are equal, otherwise the list of the different values."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else different


def _collated(trainer: SFTTrainer) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the token ids and labels that the collator makes of each row; one row at a time, to avoid padding."""
    for row in trainer.train_dataset:
        batch = trainer.data_collator([row])
        yield batch["input_ids"].flatten().tolist(), batch["labels"].flatten().tolist()


def _without(cost: PhaseCost, seconds: float) -> PhaseCost:
    return replace(cost, seconds=replace(cost.seconds, value=max(0.0, cost.seconds.value - seconds)))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _dataset(rows: Sequence[Row]) -> Dataset:
    """Build the training dataset. TRL does not change rows that already have labels."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    return Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]})


def lora_config(settings: Settings) -> LoraConfig:
    """Return PEFT's configuration of an adapter with these settings."""
    from peft import LoraConfig

    return LoraConfig(**trainer_arguments.lora_arguments(settings))


def sft_arguments(base: Base, settings: Settings, seed: int, folder: str) -> SFTConfig:
    """Return TRL's training arguments for these settings; SFTTrainer writes its files to `folder`."""
    from trl import SFTConfig

    cuda = base.machine.kind is DeviceKind.CUDA
    return SFTConfig(
        output_dir=folder,
        **trainer_arguments.sft_arguments(settings, seed),
        **trainer_arguments.machine_arguments(base.machine),
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        logging_steps=1,
        logging_strategy="steps",
        save_strategy="no",
        report_to="none",
        # TRL would add a loss that balances the routers of a mixture of experts, over all tokens. The routers are
        # frozen, so only the adapters would change for it.
        router_aux_loss_coef=0.0,
        disable_tqdm=True,
    )
