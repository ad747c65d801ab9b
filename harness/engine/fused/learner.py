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
ELEMENTWISE = ("AdamW", "Adagrad", "RMSprop", "SGD")
"""PyTorch's optimizers that know no shapes; 8-bit ones work by blocks of a tensor, Adafactor by rows and columns."""


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
    """A trial in training. Its parameters lie one behind the other in one vector, in full precision.

    What is in the stack is a copy of them, in the precision that is computed in.
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
        """`weights` are those to begin with."""
        import torch

        self.rows, self.settings, self.seed, self.log = rows, settings, seed, log
        self.scale = LossScale(used=scaled)
        self.total = steps_of(len(rows), settings)
        self._arguments, self._scaled = arguments, scaled
        self._windows = windows(len(rows), settings, seed)
        whole = torch.cat([half.flatten() for pair in weights.values() for half in pair])
        self._whole = torch.nn.Parameter(whole.to(device))
        self._names, self._shapes = list(weights), [half.shape for pair in weights.values() for half in pair]
        self._own = [torch.nn.Parameter(part) for part in self._parts(self._whole.data)]
        self._data = [parameter.data for parameter in self._own]
        self._optimizer, self._scheduler = self._optimize()

    @property
    def size(self) -> int:
        """Weights of the adapter."""
        return self._whole.numel()

    def collect_in(self, room: torch.Tensor) -> None:
        """Gradients will be collected in this vector, which may serve other trials between two steps."""
        self._gradient, self._gradients = room[: self.size], self._parts(room)
        self._whole.grad = self._gradient
        for parameter, gradient in zip(self._own, self._gradients, strict=True):
            parameter.grad = gradient

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

    def _parts(self, whole: torch.Tensor) -> list[torch.Tensor]:
        """Views of a vector, or of its beginning, in the shapes of the parameters."""
        import torch

        parts = torch.split(whole[: self.size], [shape.numel() for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """As the reference engine's model calls them."""
        names = (f"base_model.model.{name}.lora_{half}.default.weight" for name in self._names for half in "AB")
        yield from zip(names, self._own, strict=True)

    @property
    def pairs(self) -> dict[str, Pair]:
        """Its weights by module, as they are and where they are."""
        return self._paired(self._data)

    def weights(self) -> dict[str, Pair]:
        """A copy of what was learned so far, in main memory."""
        return self._paired(self._parts(self._whole.detach().to("cpu", copy=True)))

    def _paired(self, parts: Sequence[torch.Tensor]) -> dict[str, Pair]:
        return dict(zip(self._names, zip(parts[::2], parts[1::2], strict=True), strict=True))

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
        # What learns each weight by itself may as well see them as one: a step on hundreds takes many times longer.
        alike = kind.__module__.startswith("torch.") and kind.__name__ in ELEMENTWISE
        parameters = [self._whole] if alike else self._own
        optimizer = kind([{"params": parameters, "weight_decay": given.weight_decay}], **options)
        warmup = given.get_warmup_steps(self.total)
        schedule = get_scheduler(
            given.lr_scheduler_type, optimizer, num_warmup_steps=warmup, num_training_steps=self.total
        )
        return optimizer, schedule

    # --- one step -------------------------------------------------------------------------------------------------

    def learn(self, loss: float, gradients: Mapping[str, Pair], views: Mapping[str, Pair]) -> None:
        """Take the step that the window's gradients ask for, put the result into the stack's `views`, write the log.

        Gradients that overflowed in fp16 are passed over.
        """
        import torch

        if not self.log.steps:
            self._check(gradients)
        torch._foreach_copy_(self._gradients, self._halves(gradients))
        if self.scale.value != 1:
            self._gradient.mul_(1 / self.scale.value)
        norm = float(torch.nn.utils.clip_grad_norm_([self._whole], self.settings.max_grad_norm or math.inf))
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
        """Hold the first step to what training means, as the reference engine is held."""
        for number, parameter in enumerate(self._own):
            if self._names[number // 2] not in gradients:
                parameter.grad = None
        check_gradients(self)

    def _halves(self, pairs: Mapping[str, Pair]) -> list[torch.Tensor]:
        return [half for name in self._names for half in pairs[name]]


def steps_of(count: int, settings: Settings) -> int:
    """Optimizer steps of a training on `count` rows."""
    return math.ceil(settings.epochs * _steps_per_epoch(count, settings))


def _steps_per_epoch(count: int, settings: Settings) -> int:
    return max(1, math.ceil(math.ceil(count / settings.batch_size) / settings.gradient_accumulation))
