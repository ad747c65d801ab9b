"""The state of one trial in a fused training: data order, optimizer, schedule and loss scale, all as in SFTTrainer."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.settings import Settings
from harness.core.training_outcome import Fingerprint
from harness.engine.loading import Base, attention_of
from harness.engine.tokenization import IGNORED, Row
from harness.engine.trainers.fused.vectors import in_main_memory, pairs_of, shapes_of
from harness.engine.trainers.sft import LOG, LogState, TrainingLog, check_gradients, fingerprint_of
from harness.storage.records import read_record, write_record

if TYPE_CHECKING:
    import torch
    from trl import SFTConfig

    from harness.engine.trainers.fused.initialisation import InitialAdapter
    from harness.engine.trainers.fused.layer import Pair
    from harness.engine.trainers.fused.stack import Stack

GROWTH_INTERVAL = 2000
"""Steps without overflow after which the loss scale doubles, as in torch.amp.GradScaler."""
FIRST_SCALE = 2.0**16
"""The loss scale of the first step, as in torch.amp.GradScaler."""
ELEMENTWISE = ("AdamW", "Adagrad", "RMSprop", "SGD")
"""PyTorch optimizers whose update does not depend on a tensor's shape (8-bit optimizers and Adafactor depend on it)."""
_STATE = "state.pt"
"""File of the tensors in the state of a training."""
_CLIP_EPSILON = 1e-6
"""Added to a norm before clipping divides by it, as torch.nn.utils.clip_grad_norm_ does."""


@dataclass(frozen=True)
class Window:
    """The numbers of the rows of one optimizer step, and how many epochs (with fraction) are done after the step."""

    rows: tuple[int, ...]
    epoch: float
    ends_epoch: bool


def windows(count: int, settings: Settings, seed: int) -> Iterator[Window]:
    """Yield the windows of a training on `count` rows in the order of transformers' Trainer.

    Each epoch is a permutation from a generator seeded with seed + epoch (accelerate's SeedableRandomSampler), cut into
    batches. A step takes `gradient_accumulation` batches, or the remaining ones at the end of an epoch.
    """
    import torch

    batches, left = math.ceil(count / settings.batch_size), steps_of(count, settings)
    size = settings.batch_size * settings.gradient_accumulation
    for epoch in range(math.ceil(settings.epochs)):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        for start in range(0, count, size):
            if not left:
                return
            left -= 1
            done = min(batches, (start + size) // settings.batch_size)
            yield Window(tuple(order[start : start + size]), epoch + done / batches, done == batches)


class LossScale:
    """The loss scale of fp16, updated as torch.amp.GradScaler does; always 1 if `used` is false."""

    def __init__(self, *, used: bool) -> None:
        self.value = FIRST_SCALE if used else 1.0
        self._used = used
        self._taken = 0

    def state(self) -> tuple[float, int]:
        """Return the scale, and the number of steps since it changed or an update was skipped."""
        return self.value, self._taken

    def restore(self, state: tuple[float, int]) -> None:
        """Continue with the result of `state`."""
        self.value, self._taken = state

    def update(self, *, skipped: bool) -> None:
        """Halve the scale after a skipped step; double it after `GROWTH_INTERVAL` steps without a skipped one."""
        if not self._used:
            return
        self._taken = 0 if skipped else self._taken + 1
        if skipped:
            self.value /= 2
        elif self._taken == GROWTH_INTERVAL:
            self.value *= 2
            self._taken = 0


class TrialState:
    """One trial of a fused training. All its parameters are views of one vector, (size,), in full precision.

    The stack holds a copy of the parameters, and their gradients, in compute precision.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        settings: Settings,
        seed: int,
        arguments: SFTConfig,
        log: TrainingLog,
        initial: InitialAdapter,
        *,
        scaled: bool,
    ) -> None:
        """Begin with the weights of `initial`, whose vector will be trained in place."""
        import torch

        self.rows, self.settings, self.seed, self.log = rows, settings, seed, log
        self.scale = LossScale(used=scaled)
        self.total = steps_of(len(rows), settings)
        self._arguments, self._scaled = arguments, scaled
        self._windows = windows(len(rows), settings, seed)
        self._vector = torch.nn.Parameter(initial.vector)
        self._shapes = shapes_of(initial.adapter.weights)
        self._own = [torch.nn.Parameter(half) for half in _halves(initial.adapter.weights)]
        self._optimizer, self._scheduler = self._optimize()
        self.stopped = False
        """Whether the training stops here before its end, so that it can be continued."""

    @property
    def size(self) -> int:
        """Number of weights of the adapter."""
        return self._vector.numel()

    def use_gradient_buffer(self, buffer: torch.Tensor) -> None:
        """Store this trial's gradients in the first `size` elements of the one-dimensional `buffer`.

        Between two steps of this trial, other trials may use the same buffer.
        """
        self._gradient = self._vector.grad = buffer[: self.size]
        for parameter, gradient in zip(self._own, _halves(pairs_of(buffer, self._shapes)), strict=True):
            parameter.grad = gradient

    @property
    def ended(self) -> bool:
        """Whether the trial has diverged, stops before its end, or has taken all its steps."""
        return self.stopped or bool(self.log.diverged) or len(self.log.steps) == self.total

    def next_window(self) -> Window:
        """Advance to the window of the next optimizer step, and return it."""
        self.window = next(self._windows)
        self.target_tokens = sum(label != IGNORED for row in self.window.rows for label in self.rows[row].labels[1:])
        """Number of tokens to predict in the window; the loss is divided by it."""
        return self.window

    # --- parameters -----------------------------------------------------------------------------------------------

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield each parameter with the name that it has in the reference trainer's model."""
        names = (f"base_model.model.{name}.lora_{half}.default.weight" for name in self._shapes for half in "AB")
        yield from zip(names, self._own, strict=True)

    def weights(self) -> dict[str, Pair]:
        """Return copies of the current `A`, (rank, in), and `B`, (out, rank), in main memory, by module."""
        return pairs_of(in_main_memory(self._vector.detach()), self._shapes)

    def saved(self) -> SavedState:
        """Return a copy, in main memory, of everything from which the training continues."""
        parts = {
            "weights": self._vector.detach(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "scale": self.scale.state(),
        }
        return SavedState(_in_main_memory(parts), self.log.state())

    def restore(self, folder: Path) -> None:
        """Continue from the state that `SavedState.write` wrote; to be called before the first step."""
        import torch

        parts = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
        self._vector.data.copy_(parts["weights"])
        self._optimizer.load_state_dict(parts["optimizer"])
        self._scheduler.load_state_dict(parts["scheduler"])
        self.scale.restore(parts["scale"])
        self.log.restore(read_record(folder / LOG, LogState))
        for _ in self.log.steps:
            next(self._windows)

    def fingerprint(self, base: Base) -> Fingerprint:
        """Build the fingerprint that the reference trainer would give the same training."""
        return fingerprint_of(
            ((row.input_ids, row.labels) for row in self.rows),
            template=base.tokenizer.chat_template,
            trainable=(name for name, _ in self.named_parameters()),
            optimizer=self._optimizer,
            max_grad_norm=self.settings.max_grad_norm,
            batch=(self.settings.batch_size, self.settings.gradient_accumulation),
            steps=self.log.steps,
            attention=attention_of(base.model),
        )

    def _optimize(self) -> tuple[Any, Any]:
        from transformers import Trainer, get_scheduler

        given = self._arguments
        kind, options = Trainer.get_optimizer_cls_and_kwargs(given)
        optimizer = kind(self._groups(kind, given.weight_decay), **options)
        schedule = get_scheduler(
            given.lr_scheduler_type,
            optimizer,
            num_warmup_steps=given.get_warmup_steps(self.total),
            num_training_steps=self.total,
            scheduler_specific_kwargs=given.lr_scheduler_kwargs,
        )
        return optimizer, schedule

    def _groups(self, kind: type, decay: float) -> list[dict[str, Any]]:
        """Return the groups of parameters of an optimizer of class `kind`.

        An elementwise optimizer can update the vector, many times faster than hundreds of separate parameters. For
        LoRA+, the matrices B have a learning rate of their own, as in PEFT's `create_loraplus_optimizer`.
        """
        rate, ratio = self.settings.learning_rate, self.settings.loraplus_lr_ratio
        if ratio != 1:
            return [
                {"params": self._own[::2], "weight_decay": decay, "lr": rate},
                {"params": self._own[1::2], "weight_decay": decay, "lr": rate * ratio},
            ]
        alike = kind.__module__.startswith("torch.") and kind.__name__ in ELEMENTWISE
        return [{"params": [self._vector] if alike else self._own, "weight_decay": decay}]

    # --- one step -------------------------------------------------------------------------------------------------

    def check(self, reached: Collection[str]) -> None:
        """Check, as the reference trainer does before the first step, that every weight has got a gradient.

        `reached` has the names of the modules whose matrices got one.
        """
        for number, name in enumerate(self._shapes):
            if name not in reached:
                self._own[2 * number].grad = self._own[2 * number + 1].grad = None
        check_gradients(self)

    def step(self, loss: float, norm: float, stack: Stack, slot: int) -> None:
        """Take and log one optimizer step with the trial's gradient in the stack, and update its weights there.

        `loss` is the window's, and `norm` is the gradient's Euclidean norm, both without the loss scale. The update is
        skipped if the gradient overflowed in fp16.
        """
        rate = self._scheduler.get_last_lr()[0]
        skipped = self._scaled and not math.isfinite(norm)
        factor = min(1.0, (self.settings.max_grad_norm or math.inf) / (norm + _CLIP_EPSILON)) / self.scale.value
        self.scale.update(skipped=skipped)
        if not skipped:
            stack.read_gradient(slot, self._gradient)
            if factor != 1:
                self._gradient.mul_(factor)
            self._optimizer.step()
            self._scheduler.step()
            stack.write_weights(slot, self._vector.data)
        rows = [self.rows[row] for row in self.window.rows]
        self.log.count(sum(len(row.input_ids) for row in rows), sum(row.supervised for row in rows))
        logs = {"loss": loss, "grad_norm": norm, "learning_rate": rate, "epoch": self.window.epoch}
        self.log.add(len(self.log.steps) + 1, self.total, logs)


@dataclass(frozen=True)
class SavedState:
    """The weights, optimizer, schedule and log of a training that stopped before its end."""

    parts: Mapping[str, Any]
    log: LogState

    def write(self, folder: Path) -> None:
        """Write the state into `folder`."""
        import torch

        torch.save(self.parts, folder / _STATE)
        write_record(folder / LOG, self.log)


def _in_main_memory(value: Any) -> Any:
    """Return a copy of nested dictionaries, lists and tuples with all tensors in main memory."""
    import torch

    if isinstance(value, torch.Tensor):
        return in_main_memory(value.detach())
    if isinstance(value, dict):
        return {key: _in_main_memory(each) for key, each in value.items()}
    return type(value)(map(_in_main_memory, value)) if isinstance(value, list | tuple) else value


def _halves(pairs: Mapping[str, Pair]) -> list[torch.Tensor]:
    return [half for pair in pairs.values() for half in pair]


def steps_of(count: int, settings: Settings) -> int:
    """Return the number of optimizer steps of a training on `count` rows."""
    return math.ceil(settings.epochs * _steps_per_epoch(count, settings))


def _steps_per_epoch(count: int, settings: Settings) -> int:
    return max(1, math.ceil(math.ceil(count / settings.batch_size) / settings.gradient_accumulation))
