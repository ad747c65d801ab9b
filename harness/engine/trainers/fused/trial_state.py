"""The state of one trial in a fused training: data order, optimizer, schedule and loss scale, all as in SFTTrainer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.core.settings import Settings
from harness.core.training_outcome import Fingerprint
from harness.engine.loading import Base, attention_of
from harness.engine.tokenization import IGNORED, Row
from harness.engine.trainers.sft import TrainingLog, check_gradients, fingerprint_of

if TYPE_CHECKING:
    import torch
    from trl import SFTConfig

    from harness.engine.trainers.fused.layer import Pair

GROWTH_INTERVAL = 2000
"""Steps without overflow after which the loss scale doubles, as in torch.amp.GradScaler."""
FIRST_SCALE = 2.0**16
"""The loss scale of the first step, as in torch.amp.GradScaler."""
ELEMENTWISE = ("AdamW", "Adagrad", "RMSprop", "SGD")
"""PyTorch optimizers whose update does not depend on a tensor's shape (8-bit optimizers and Adafactor depend on it)."""


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

    The stack holds a copy of the parameters in compute precision.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        settings: Settings,
        seed: int,
        arguments: SFTConfig,
        log: TrainingLog,
        weights: Mapping[str, Pair],
        *,
        scaled: bool,
        device: torch.device,
    ) -> None:
        """Copy the initial weights, `A`, (rank, in), and `B`, (out, rank), by module, to `device`."""
        import torch

        self.rows, self.settings, self.seed, self.log = rows, settings, seed, log
        self.scale = LossScale(used=scaled)
        self.total = steps_of(len(rows), settings)
        self._arguments, self._scaled = arguments, scaled
        self._windows = windows(len(rows), settings, seed)
        vector = torch.cat([half.flatten() for pair in weights.values() for half in pair])
        self._vector = torch.nn.Parameter(vector.to(device))
        self._names, self._shapes = list(weights), [half.shape for pair in weights.values() for half in pair]
        self._own = [torch.nn.Parameter(part) for part in self._parts(self._vector.data)]
        self._data = [parameter.data for parameter in self._own]
        self._optimizer, self._scheduler = self._optimize()

    @property
    def size(self) -> int:
        """Number of weights of the adapter."""
        return self._vector.numel()

    def use_gradient_buffer(self, buffer: torch.Tensor) -> None:
        """Store this trial's gradients in the first `size` elements of the one-dimensional `buffer`.

        Between two steps of this trial, other trials may use the same buffer.
        """
        self._gradient, self._gradients = buffer[: self.size], self._parts(buffer)
        self._vector.grad = self._gradient
        for parameter, gradient in zip(self._own, self._gradients, strict=True):
            parameter.grad = gradient

    @property
    def ended(self) -> bool:
        """Whether the trial has diverged or taken all its steps."""
        return bool(self.log.diverged) or len(self.log.steps) == self.total

    def next_window(self) -> Window:
        """Advance to the window of the next optimizer step, and return it."""
        self.window = next(self._windows)
        return self.window

    @property
    def target_tokens(self) -> int:
        """Number of tokens to predict in the current window; the loss is divided by it."""
        return sum(label != IGNORED for row in self.window.rows for label in self.rows[row].labels[1:])

    # --- parameters -----------------------------------------------------------------------------------------------

    def _parts(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """Return views of the first `size` elements of a vector, one in the shape of each parameter."""
        import torch

        parts = torch.split(vector[: self.size], [shape.numel() for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield each parameter with the name that it has in the reference trainer's model."""
        names = (f"base_model.model.{name}.lora_{half}.default.weight" for name in self._names for half in "AB")
        yield from zip(names, self._own, strict=True)

    @property
    def pairs(self) -> dict[str, Pair]:
        """Views of the current `A`, (rank, in), and `B`, (out, rank), by module."""
        return self._paired(self._data)

    def weights(self) -> dict[str, Pair]:
        """Return copies of the current `A`, (rank, in), and `B`, (out, rank), in main memory, by module."""
        return self._paired(self._parts(self._vector.detach().to("cpu", copy=True)))

    def _paired(self, parts: Sequence[torch.Tensor]) -> dict[str, Pair]:
        return dict(zip(self._names, zip(parts[::2], parts[1::2], strict=True), strict=True))

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
        # An elementwise optimizer can update the vector, many times faster than hundreds of separate parameters.
        alike = kind.__module__.startswith("torch.") and kind.__name__ in ELEMENTWISE
        parameters = [self._vector] if alike else self._own
        optimizer = kind([{"params": parameters, "weight_decay": given.weight_decay}], **options)
        warmup = given.get_warmup_steps(self.total)
        schedule = get_scheduler(
            given.lr_scheduler_type, optimizer, num_warmup_steps=warmup, num_training_steps=self.total
        )
        return optimizer, schedule

    # --- one step -------------------------------------------------------------------------------------------------

    def step(self, loss: float, gradients: Mapping[str, Pair], views: Mapping[str, Pair]) -> None:
        """Take and log one optimizer step with the window's gradients, and copy the weights to the stack's `views`.

        The update is skipped if the gradients overflowed in fp16. `gradients` and `views` are `A`, (rank, in), and `B`,
        (out, rank), by module.
        """
        import torch

        if not self.log.steps:
            self._check(gradients)
        torch._foreach_copy_(self._gradients, self._halves(gradients))
        if self.scale.value != 1:
            self._gradient.mul_(1 / self.scale.value)
        norm = float(torch.nn.utils.clip_grad_norm_([self._vector], self.settings.max_grad_norm or math.inf))
        rate = self._scheduler.get_last_lr()[0]
        skipped = self._scaled and not math.isfinite(norm)
        self.scale.update(skipped=skipped)
        if not skipped:
            self._optimizer.step()
            self._scheduler.step()
            torch._foreach_copy_(self._halves(views), self._data)
        rows = [self.rows[row] for row in self.window.rows]
        self.log.count(sum(len(row.input_ids) for row in rows), sum(row.supervised for row in rows))
        logs = {"loss": loss, "grad_norm": norm, "learning_rate": rate, "epoch": self.window.epoch}
        self.log.add(len(self.log.steps) + 1, self.total, logs)

    def _check(self, gradients: Mapping[str, Pair]) -> None:
        """Check, as the reference trainer does before the first step, that every weight has a gradient."""
        for number, parameter in enumerate(self._own):
            if self._names[number // 2] not in gradients:
                parameter.grad = None
        check_gradients(self)

    def _halves(self, pairs: Mapping[str, Pair]) -> list[torch.Tensor]:
        return [half for name in self._names for half in pairs[name]]


def steps_of(count: int, settings: Settings) -> int:
    """Return the number of optimizer steps of a training on `count` rows."""
    return math.ceil(settings.epochs * _steps_per_epoch(count, settings))


def _steps_per_epoch(count: int, settings: Settings) -> int:
    return max(1, math.ceil(math.ceil(count / settings.batch_size) / settings.gradient_accumulation))
