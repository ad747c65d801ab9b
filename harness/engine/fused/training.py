"""Rounds in which every trial takes one step: their rows go through the base together, each learns by itself.

The mathematics is that of TRL's SFTTrainer for every trial alone. A round takes each trial's next window (its batches
up to the optimizer step), sorts all rows by length into passes over the base, and adds up gradients; then each trial
clips and steps by itself. One whose loss is not finite, or that has taken its steps, leaves before the next round.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.settings import Settings, unfusible
from harness.engine.base import Base, check_precision, check_trainable, checkpoint, opened, untouched
from harness.engine.fused.fresh import Fresh, begin, save, wide
from harness.engine.fused.learner import Learner
from harness.engine.fused.passes import even_passes, padded, passes
from harness.engine.fused.stack import Adapter, PassRow, Stack
from harness.engine.reference import Keep, TrainingLog, sft_arguments
from harness.engine.rows import IGNORED, Row
from harness.errors import EngineError
from harness.records import DeviceKind, Fingerprint, Status, Step

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

    from harness.engine.fused.layer import Pair

LogProbabilities = Callable[[Any, "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""(model, ids, labels), all (rows, tokens), to the log-probability of each label but the first; 0 where ignored."""
PASS_TOKENS = {DeviceKind.CPU: 2048, DeviceKind.CUDA: 4096}
"""Padded tokens that go through the base at once, unless one row alone has more."""
OVERHEAD = {DeviceKind.CPU: 100, DeviceKind.CUDA: 1024}
"""What a pass costs beside its tokens, in tokens: on a GPU, dequantising the base and starting kernels."""
EVEN = 1.25
"""How many times the padded tokens passes may have in which no trial has more rows than another."""


@dataclass(frozen=True)
class Lot:
    """A trial as an engine is given it; `name` is what its progress is told under."""

    name: str
    rows: Sequence[Row]
    settings: Settings
    seed: int
    keep: Keep | None = None
    """Told of every epoch but the last, as by the reference engine."""


@dataclass(frozen=True)
class Learned:
    """How a trial of a pass ended, and its adapter."""

    name: str
    status: Status
    message: str
    steps: tuple[Step, ...]
    trainable_parameters: int
    supervised_tokens: int
    tokens: int
    weights: dict[str, Pair]
    config: LoraConfig
    fingerprint: Fingerprint | None
    """Without what only the saved adapter shows; None where the training did not succeed."""
    keeping: float
    """Seconds of the pass that went into `keep`."""

    def save(self, folder: Path) -> None:
        """In PEFT's files: nobody can tell which engine trained it."""
        save(self.weights, self.config, folder)


def train_together(
    base: Base,
    lots: Sequence[Lot],
    *,
    progress: Callable[[str, Step, int], None],
    log_probabilities: LogProbabilities | None = None,
    pass_tokens: int | None = None,
) -> Iterator[Learned]:
    """Train the lots side by side; each is given back when it has ended, and the base is bare again afterwards.

    Raises:
        EngineError: a lot asks for another base than this one, or for what cannot be fused; a guard was broken.
        torch.OutOfMemoryError: not even one row at a time fits, or the trials' states do not.
    """
    for lot in lots:
        _check(base, lot.settings)
    check_trainable(base.model)
    check_precision(base.model, base.machine)
    begun = begin(base, [(lot.settings, lot.seed) for lot in lots])
    with untouched(base.model), opened(base), contextlib.ExitStack() as undo:
        yield from _Run(base, lots, begun, progress, log_probabilities, pass_tokens, undo).go()


def _check(base: Base, settings: Settings) -> None:
    if base.quantization is not settings.quantization:
        raise EngineError(f"the base is {base.quantization} and the trial asks for {settings.quantization}")
    if names := unfusible(settings):
        told = ", ".join(f"{name}={getattr(settings, name)}" for name in names)
        raise EngineError(f"the fused engine cannot train {told}", remedy="Use --engine reference.")


class _Run:
    """A pass from start to end."""

    def __init__(
        self,
        base: Base,
        lots: Sequence[Lot],
        begun: Sequence[Fresh],
        progress: Callable[[str, Step, int], None],
        log_probabilities: LogProbabilities | None,
        pass_tokens: int | None,
        undo: contextlib.ExitStack,
    ) -> None:
        """What is to be undone is told to `undo` as soon as it is done: memory may run out before the next line."""
        import torch

        self._base = base
        kind, precision = base.machine.kind, base.machine.compute_dtype
        self._autocast = precision if kind is DeviceKind.CUDA and precision in ("float16", "bfloat16") else None
        self._limit, self._overhead = pass_tokens or PASS_TOKENS[kind], OVERHEAD[kind]
        self._log_probabilities = log_probabilities or _fused_head(base)
        self._lots, self._configs = list(lots), [one.config for one in begun]
        self._learners = [self._learner(lot, one.adapter, progress) for lot, one in zip(lots, begun, strict=True)]
        # In the precision that is computed in: what the optimizers see is each learner's own.
        held = base.model.dtype if self._autocast else None
        both = zip(begun, self._learners, strict=True)
        self.stack = Stack(base.model, [replace(one.adapter, weights=own.pairs) for one, own in both], dtype=held)
        undo.callback(self.stack.remove)
        self._views = self.stack.views()
        room = torch.empty(max(each.size for each in self._learners), dtype=wide(base), device=base.device)
        for learner in self._learners:
            learner.collect_in(room)
        if kind is DeviceKind.CUDA:
            checkpoint(base.model)
        base.model.train()

    def _learner(self, lot: Lot, adapter: Adapter, progress: Callable[[str, Step, int], None]) -> Learner:
        half = self._autocast == "float16"
        log = TrainingLog(allow_skipped=half, progress=partial(progress, lot.name), keep=lot.keep)
        arguments = sft_arguments(self._base, lot.settings, lot.seed, "unused")
        given = (lot.rows, lot.settings, lot.seed, arguments, log, adapter.weights)
        return Learner(*given, scaled=half, device=self._base.device)

    def go(self) -> Iterator[Learned]:
        while self._learners:
            self._round()
            ended = {slot for slot, learner in enumerate(self._learners) if learner.ended}
            if ended:
                yield from [self._learned(slot) for slot in sorted(ended)]
                for listed in (self._learners, self._lots, self._configs):
                    listed[:] = [each for slot, each in enumerate(listed) if slot not in ended]
                self.stack.leave(ended)
                self._views = self.stack.views()

    def _learned(self, slot: int) -> Learned:
        learner, log = self._learners[slot], self._learners[slot].log
        log.check_end(learner)
        return Learned(
            name=self._lots[slot].name,
            status=Status.DIVERGED if log.diverged else Status.SUCCEEDED,
            message=log.diverged,
            steps=tuple(log.steps),
            trainable_parameters=sum(p.numel() for _, p in learner.named_parameters()),
            supervised_tokens=log.supervised,
            tokens=log.tokens,
            weights=learner.weights(),
            config=self._configs[slot],
            fingerprint=None if log.diverged else learner.fingerprint(self._base.tokenizer.chat_template),
            keeping=log.keeping,
        )

    # --- one round ------------------------------------------------------------------------------------------------

    def _round(self) -> None:
        import torch

        rows = [
            (slot, number, learner.rows[row])
            for slot, learner in enumerate(self._learners)
            for number, row in enumerate(learner.open_window().rows)
        ]
        told = torch.stack([torch.stack(own).sum() for own in self._losses(rows)]).tolist()
        found = zip(self._learners, self._configs, told, self.stack.gradients(), self._views, strict=True)
        for learner, config, loss, gradients, views in found:
            learner.learn(loss, gradients, views)
            if learner.window.ends_epoch and not learner.ended:
                learner.log.end_epoch(partial(_save_now, learner, config))

    def _losses(self, rows: Sequence[tuple[int, int, Row]]) -> list[list[torch.Tensor]]:
        """What each trial loses on its rows, pass by pass; their gradients lie in the stack afterwards.

        Where memory runs out, all of it again in smaller passes, this round and from then on.
        """
        import torch

        owners, lengths = [slot for slot, _, _ in rows], [len(row.input_ids) for _, _, row in rows]
        while True:
            self.stack.zero_grad()
            losses: list[list[torch.Tensor]] = [[] for _ in self._learners]
            try:
                for group in self._groups(owners, lengths):
                    self._pass([rows[index] for index in sorted(group)], losses)
            except torch.OutOfMemoryError:
                if self._limit <= max(lengths):
                    raise
            else:
                return losses
            self._limit = max(self._limit // 2, *lengths)
            torch.cuda.empty_cache()

    def _groups(self, owners: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        """Which rows go through the base together."""
        given = {"overhead": self._overhead, "limit": self._limit}
        cheapest, even = passes(lengths, **given), even_passes(owners, lengths, **given)
        if even and padded(even, lengths, self._overhead) <= EVEN * padded(cheapest, lengths, self._overhead):
            return even
        return cheapest

    def _pass(self, rows: Sequence[tuple[int, int, Row]], losses: list[list[torch.Tensor]]) -> None:
        """Forward and backward of some rows, ordered by slot; every trial's loss is a sum over its own rows alone."""
        import torch

        ids, labels = self._padded([row for _, _, row in rows])
        self.stack.enter([self._pass_row(*row) for row in rows])
        with self._precision():
            found = self._log_probabilities(self._base.model, ids, labels)
        total: list[torch.Tensor] = []
        slots = [slot for slot, _, _ in rows]
        for slot in sorted(set(slots)):
            learner, start = self._learners[slot], slots.index(slot)
            loss = -found[start : start + slots.count(slot)].sum() / learner.items
            losses[slot].append(loss.detach())
            total.append(loss * learner.scale.value)
        torch.autograd.backward(torch.stack(total).sum())

    def _pass_row(self, slot: int, number: int, row: Row) -> PassRow:
        learner = self._learners[slot]
        return PassRow(slot, len(row.input_ids), (learner.seed, len(learner.log.steps), number))

    def _padded(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded on the right, where no token before can see it: attention needs no mask and takes its fast way."""
        import torch

        width = max(len(row.input_ids) for row in rows)
        pad = self._base.tokenizer.pad_token_id
        ids = [row.input_ids + [pad] * (width - len(row.input_ids)) for row in rows]
        labels = [row.labels + [IGNORED] * (width - len(row.labels)) for row in rows]
        device = self._base.device
        return torch.tensor(ids, device=device), torch.tensor(labels, device=device)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        import torch

        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast("cuda", dtype=getattr(torch, self._autocast))


def _save_now(learner: Learner, config: LoraConfig, folder: Path) -> None:
    save(learner.weights(), config, folder)


def _fused_head(base: Base) -> LogProbabilities:
    """TRL's own, which SFTTrainer uses: log-probabilities of the labels without all logits in memory.

    On a CPU that scores every position. Where the model does nothing to its logits, those with a label are enough.
    """
    config = base.model.config.get_text_config()
    if base.machine.kind is DeviceKind.CPU and not any(getattr(config, name, None) for name in _LOGITS_CHANGED):
        return _labelled_only
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(base.model)

    def log_probabilities(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(input_ids=ids, labels=labels, fused_lm_head=True).log_probs
        return found

    return log_probabilities


_LOGITS_CHANGED = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
)  # fmt: skip
"""What configurations call what is done to logits, as TRL's head knows them."""


def _labelled_only(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    mask = wanted != IGNORED
    logits = model.get_output_embeddings()(hidden[mask]).float()
    own = logits.log_softmax(-1).gather(-1, wanted[mask][:, None]).squeeze(-1)
    found: torch.Tensor = own.new_zeros(mask.shape).masked_scatter(mask, own)
    return found
