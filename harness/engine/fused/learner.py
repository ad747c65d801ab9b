"""One trial of a fused pass: its data order, optimizer, schedule, clipping and loss scale, as SFTTrainer has them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.engine.reference import TrainingLog, check_gradients, fingerprint_of
from harness.engine.rows import IGNORED, Row
from harness.records import Fingerprint, Settings

if TYPE_CHECKING:
    import torch
    from trl import SFTConfig

    from harness.engine.fused.layer import Pair

GROWTH_INTERVAL = 2000
"""Steps without overflow after which the loss scale doubles, and its first value, as torch.amp.GradScaler has them."""
FIRST_SCALE = 2.0**16


@dataclass(frozen=True)
class Window:
    """What one optimizer step learns from: row numbers, and the epoch that has passed after it."""

    rows: tuple[int, ...]
    epoch: float
    ends_epoch: bool


def windows(count: int, settings: Settings, seed: int) -> Iterator[Window]:
    """The windows of a training on `count` rows, as transformers' Trainer draws them.

    Each epoch is a permutation from a generator seeded with seed + epoch (accelerate's SeedableRandomSampler), cut into
    batches; `gradient_accumulation` of them make a step, fewer at an epoch's end; it ends after the planned steps.
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
    """fp16's loss scale, as torch.amp.GradScaler moves it; 1 and unmoved where none is needed."""

    def __init__(self, *, used: bool) -> None:
        self.value = FIRST_SCALE if used else 1.0
        self._used = used
        self._taken = 0

    def update(self, *, skipped: bool) -> None:
        if not self._used:
            return
        self._taken = 0 if skipped else self._taken + 1
        if skipped:
            self.value /= 2
        elif self._taken == GROWTH_INTERVAL:
            self.value *= 2
            self._taken = 0


class Learner:
    """A trial in training. Its parameters lie in the stack where that is contiguous, else they are copied there."""

    def __init__(
        self,
        rows: Sequence[Row],
        settings: Settings,
        seed: int,
        arguments: SFTConfig,
        log: TrainingLog,
        *,
        scaled: bool,
    ) -> None:
        self.rows, self.settings, self.seed, self.log = rows, settings, seed, log
        self.scale = LossScale(used=scaled)
        self.total = steps_of(len(rows), settings)
        self.tokens = 0
        self._arguments, self._scaled = arguments, scaled
        self._windows = windows(len(rows), settings, seed)
        self._parameters: dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]] = {}

    @property
    def ended(self) -> bool:
        return bool(self.log.diverged) or len(self.log.steps) == self.total

    def open_window(self) -> Window:
        self.window = next(self._windows)
        return self.window

    @property
    def items(self) -> int:
        """Tokens to predict in the window, by whose number its loss is divided."""
        return sum(label != IGNORED for row in self.window.rows for label in self.rows[row].labels[1:])

    # --- parameters -----------------------------------------------------------------------------------------------

    def attach(self, views: Mapping[str, Pair]) -> None:
        """Take one's place in the stack: at the start, and whenever another trial has left it."""
        import torch

        if not self._parameters:
            self._parameters = {
                name: (torch.nn.Parameter(a.contiguous()), torch.nn.Parameter(b.contiguous()))
                for name, (a, b) in views.items()
            }
            self._optimizer, self._scheduler = self._optimize()
        self._views = views
        for name, pair in views.items():
            for parameter, view in zip(self._parameters[name], pair, strict=True):
                if view.is_contiguous():
                    parameter.data = view

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """As the reference engine's model calls them."""
        for name, pair in self._parameters.items():
            for half, parameter in zip("AB", pair, strict=True):
                yield f"base_model.model.{name}.lora_{half}.default.weight", parameter

    def weights(self) -> dict[str, Pair]:
        """Copies of what was learned so far, in main memory."""

        def copy(parameter: torch.nn.Parameter) -> torch.Tensor:
            return parameter.detach().to("cpu", copy=True)

        return {name: (copy(a), copy(b)) for name, (a, b) in self._parameters.items()}

    def fingerprint(self, template: str) -> Fingerprint:
        """As the reference engine's."""
        return fingerprint_of(
            ((row.input_ids, row.labels) for row in self.rows),
            template=template,
            trainable=(name for name, _ in self.named_parameters()),
            optimizer=self._optimizer,
            max_grad_norm=self.settings.max_grad_norm,
            batch=(self.settings.batch_size, self.settings.gradient_accumulation),
            steps=self.log.steps,
        )

    def _optimize(self) -> tuple[Any, Any]:
        from transformers import Trainer, get_scheduler

        given = self._arguments
        kind, options = Trainer.get_optimizer_cls_and_kwargs(given)
        parameters = [parameter for _, parameter in self.named_parameters()]
        optimizer = kind([{"params": parameters, "weight_decay": given.weight_decay}], **options)
        warmup = given.get_warmup_steps(self.total)
        schedule = get_scheduler(
            given.lr_scheduler_type, optimizer, num_warmup_steps=warmup, num_training_steps=self.total
        )
        return optimizer, schedule

    # --- one step -------------------------------------------------------------------------------------------------

    def clip(self, gradients: Mapping[str, Pair | None]) -> torch.Tensor:
        """Take the window's gradients, without the loss scale, and clip them; gives their norm before."""
        import torch

        for name, pair in gradients.items():
            if pair is not None:
                for parameter, gradient in zip(self._parameters[name], pair, strict=True):
                    parameter.grad = gradient.contiguous()
        if not self.log.steps:
            check_gradients(self)
        own = [parameter for _, parameter in self.named_parameters()]
        if self.scale.value != 1:
            torch._foreach_mul_([p.grad for p in own if p.grad is not None], 1 / self.scale.value)
        return torch.nn.utils.clip_grad_norm_(own, self.settings.max_grad_norm or math.inf)

    def step(self, loss: float, norm: float) -> None:
        """Learn from the clipped gradients and write the log. Gradients that overflowed in fp16 are passed over."""
        import torch

        rate = self._scheduler.get_last_lr()[0]
        skipped = self._scaled and not math.isfinite(norm)
        self.scale.update(skipped=skipped)
        if not skipped:
            self._optimizer.step()
            self._scheduler.step()
            apart = [
                (view, parameter.data)
                for name, views in self._views.items()
                for view, parameter in zip(views, self._parameters[name], strict=True)
                if view.data_ptr() != parameter.data_ptr()
            ]
            if apart:
                views, own = zip(*apart, strict=True)
                torch._foreach_copy_(list(views), list(own))
        rows = [self.rows[row] for row in self.window.rows]
        self.log.count(sum(len(row.input_ids) for row in rows), sum(row.supervised for row in rows))
        logs = {"loss": loss, "grad_norm": norm, "learning_rate": rate, "epoch": self.window.epoch}
        self.log.add(len(self.log.steps) + 1, self.total, logs)


def steps_of(count: int, settings: Settings) -> int:
    """Optimizer steps of a training on `count` rows."""
    return math.ceil(settings.epochs * _steps_per_epoch(count, settings))


def _steps_per_epoch(count: int, settings: Settings) -> int:
    return max(1, math.ceil(math.ceil(count / settings.batch_size) / settings.gradient_accumulation))
