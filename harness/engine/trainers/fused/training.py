"""Trains many trials in rounds of one optimizer step each; their rows share the passes over the base.

Each trial is computed as TRL's SFTTrainer computes it. A round takes each trial's next window (the batches of one
optimizer step), divides all rows by length into passes over the base, and accumulates gradients. Then each trial clips
its own gradients and takes its own step. A trial that has diverged or taken all its steps leaves before the next round.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import EngineError
from harness.core.settings import Settings, unfusible
from harness.core.training_outcome import Status
from harness.core.units import DeviceKind
from harness.engine.loading import (
    Base,
    check_precision,
    check_quantization,
    check_trainable,
    checkpoint,
    dequantised,
    untouched,
)
from harness.engine.tokenization import IGNORED, Row
from harness.engine.trainers.fused.initialisation import (
    InitialAdapter,
    initial_adapters,
    save_weights,
    training_dtype,
)
from harness.engine.trainers.fused.layout import PassRow
from harness.engine.trainers.fused.passes import even_passes, padded, passes
from harness.engine.trainers.fused.stack import Stack
from harness.engine.trainers.fused.trial_state import SavedState, TrialState
from harness.engine.trainers.protocol import TrainingResult, TrialInput, TrialProgress
from harness.engine.trainers.sft import TrainingLog, sft_arguments
from harness.hardware.estimate.passes import PASS_TOKENS

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from trl import SFTConfig

    from harness.engine.trainers.fused.layer import Pair

LogProbabilities = Callable[[Any, "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Maps a model, ids and labels, both (rows, tokens), to log-probabilities of labels[:, 1:], (rows, tokens - 1).

The log-probability of an ignored label is 0."""
OVERHEAD = {DeviceKind.CPU: 100, DeviceKind.CUDA: 1024}
"""Fixed cost of a pass in tokens (on a GPU: dequantising the base and launching kernels); by device kind."""
EVEN = 1.25
"""If passes with equally many rows of every trial cost at most this many times the cheapest ones, they are used."""


@dataclass(frozen=True, kw_only=True)
class FusedResult(TrainingResult):
    """The result of one trial of a fused training, with its adapter."""

    weights: dict[str, Pair]
    config: LoraConfig
    state: SavedState | None = None
    """The state of a training that stopped before its end."""

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's files, as the reference trainer does."""
        save_weights(self.weights, self.config, folder)

    def save_state(self, folder: Path) -> None:
        """Write the state of a training that stopped before its end."""
        if self.state is None:
            raise ValueError("this training did not stop before its end")
        self.state.write(folder)


@dataclass(frozen=True)
class Fused:
    """The fused trainer: trains all trials in shared passes over the base."""

    def check(self, base: Base, settings: Settings) -> None:
        """Check that a trial can be trained on this base together with others.

        Raises:
            EngineError: the trial needs another quantisation, or has a setting that cannot be fused.
        """
        check_quantization(base, settings)
        if names := unfusible(settings):
            asked = ", ".join(f"{name}={getattr(settings, name)}" for name in names)
            raise EngineError(f"the fused engine cannot train {asked}", remedy="Use --engine reference.")

    def arguments(self, base: Base, settings: Settings, seed: int, folder: str) -> SFTConfig:
        """Return the arguments of the reference trainer; nothing is written to `folder`."""
        return sft_arguments(base, settings, seed, folder)

    def train(self, base: Base, trials: Sequence[TrialInput], *, progress: TrialProgress) -> Generator[FusedResult]:
        """Train all trials in shared passes; each result has its own copy of the weights."""
        return train_together(base, trials, progress=progress)


def train_together(
    base: Base,
    trials: Sequence[TrialInput],
    *,
    progress: TrialProgress,
    log_probabilities: LogProbabilities | None = None,
    pass_tokens: int | None = None,
) -> Generator[FusedResult]:
    """Train the trials in shared passes and yield the result of each when it has ended.

    When all have ended, the base has no adapter.

    Raises:
        EngineError: a trial needs another quantisation or cannot be fused, or a guard found that it would be trained
            wrongly.
        torch.OutOfMemoryError: a single row does not fit in memory, or the states of all trials do not.
    """
    for trial in trials:
        Fused().check(base, trial.settings)
    check_trainable(base.model)
    check_precision(base.model, base.machine)
    initial = initial_adapters(base, [(trial.settings, trial.seed) for trial in trials])
    with untouched(base.model), dequantised(base), contextlib.ExitStack() as undo:
        yield from _Run(base, trials, initial, progress, log_probabilities, pass_tokens, undo).go()


class _Run:
    """One fused training from start to end."""

    def __init__(
        self,
        base: Base,
        trials: Sequence[TrialInput],
        initial: Sequence[InitialAdapter],
        progress: TrialProgress,
        log_probabilities: LogProbabilities | None,
        pass_tokens: int | None,
        undo: contextlib.ExitStack,
    ) -> None:
        """Put the adapters on the base. What must be undone goes to `undo` at once: any line may run out of memory."""
        import torch

        self._base = base
        kind, precision = base.machine.kind, base.machine.compute_dtype
        self._autocast = precision if kind is DeviceKind.CUDA and precision in ("float16", "bfloat16") else None
        self._limit, self._overhead = pass_tokens or PASS_TOKENS[kind], OVERHEAD[kind]
        self._log_probabilities = log_probabilities or _fused_head(base)
        self._trials, self._configs = list(trials), [one.config for one in initial]
        self._states = [self._state(trial, one, progress) for trial, one in zip(trials, initial, strict=True)]
        # The stack is in compute precision. The optimizers work on the trial states' weights in full precision.
        held = base.model.dtype if self._autocast else None
        self.stack = Stack(base.model, [one.adapter for one in initial], dtype=held)
        undo.callback(self.stack.remove)
        buffer = torch.empty(max(each.size for each in self._states), dtype=training_dtype(base), device=base.device)
        for state in self._states:
            state.use_gradient_buffer(buffer)
        if kind is DeviceKind.CUDA:
            checkpoint(base.model)
            self.stack.recompute()
        base.model.train()

    def _state(self, trial: TrialInput, initial: InitialAdapter, progress: TrialProgress) -> TrialState:
        half = self._autocast == "float16"
        log = TrainingLog(allow_skipped=half, progress=partial(progress, trial.name), keep=trial.keep)
        log.until = trial.until
        arguments = sft_arguments(self._base, trial.settings, trial.seed, "unused")
        state = TrialState(trial.rows, trial.settings, trial.seed, arguments, log, initial, scaled=half)
        if trial.state:
            state.restore(trial.state)
        return state

    def go(self) -> Iterator[FusedResult]:
        """Train round by round until every trial has ended."""
        losses = self._backward()
        for state in self._states:
            state.check(self.stack.reached())
        self._step(losses)
        yield from self._leave()
        while self._states:
            self._step(self._backward())
            yield from self._leave()

    def _leave(self) -> Iterator[FusedResult]:
        """Yield the results of the trials that have ended, and remove these."""
        ended = {slot for slot, state in enumerate(self._states) if state.ended}
        if ended:
            yield from [self._result(slot) for slot in sorted(ended)]
            for listed in (self._states, self._trials, self._configs):
                listed[:] = [each for slot, each in enumerate(listed) if slot not in ended]
            self.stack.leave(ended)

    def _result(self, slot: int) -> FusedResult:
        state, log = self._states[slot], self._states[slot].log
        log.check_end(state)
        return FusedResult(
            name=self._trials[slot].name,
            status=Status.DIVERGED if log.diverged else Status.SUCCEEDED,
            message=log.diverged,
            steps=tuple(log.steps),
            trainable_parameters=sum(p.numel() for _, p in state.named_parameters()),
            supervised_tokens=log.supervised,
            tokens=log.tokens,
            weights=state.weights(),
            config=self._configs[slot],
            state=state.saved() if state.stopped else None,
            fingerprint=None if log.diverged else state.fingerprint(self._base),
            keeping=log.keeping,
        )

    # --- one round ------------------------------------------------------------------------------------------------

    def _backward(self) -> list[float]:
        """Run forward and backward for each trial's next window; return the loss of each trial.

        If memory runs out, all is repeated with smaller passes, and the passes of later rounds are as small.
        """
        import torch

        rows = [
            (slot, number, state.rows[row])
            for slot, state in enumerate(self._states)
            for number, row in enumerate(state.next_window().rows)
        ]
        owners, lengths = [slot for slot, _, _ in rows], [len(row.input_ids) for _, _, row in rows]
        while True:
            self.stack.zero_grad()
            losses = [0.0] * len(self._states)
            try:
                passes = [[rows[index] for index in sorted(group)] for group in self._groups(owners, lengths)]
                found = torch.cat([self._pass(some) for some in passes]).tolist()
            except torch.OutOfMemoryError:
                if self._limit <= max(lengths):
                    raise
            else:
                for (slot, _, _), loss in zip(itertools.chain(*passes), found, strict=True):
                    losses[slot] += loss / self._states[slot].target_tokens
                return losses
            self._limit = max(self._limit // 2, *lengths)
            torch.cuda.empty_cache()

    def _step(self, losses: Sequence[float]) -> None:
        """Let each trial take its optimizer step with the gradient in the stack."""
        norms = self.stack.norms(training_dtype(self._base)).tolist()
        each = zip(self._states, self._configs, losses, norms, strict=True)
        for slot, (state, config, loss, norm) in enumerate(each):
            state.step(loss, norm / state.scale.value, self.stack, slot)
            if state.window.ends_epoch and not state.ended:
                state.stopped = state.log.end_epoch(partial(_save_now, state, config))

    def _groups(self, owners: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        """Divide rows into passes; return the indices of each pass's rows."""
        given = {"overhead": self._overhead, "limit": self._limit}
        cheapest, even = passes(lengths, **given), even_passes(owners, lengths, **given)
        if even and padded(even, lengths, self._overhead) <= EVEN * padded(cheapest, lengths, self._overhead):
            return even
        return cheapest

    def _pass(self, rows: Sequence[tuple[int, int, Row]]) -> torch.Tensor:
        """Run forward and backward for some rows, sorted by slot; return the summed loss of each row's tokens, (rows,).

        `rows` are (slot, number within the window, row).
        """
        import torch

        ids, labels = self._padded([row for _, _, row in rows])
        self.stack.enter([self._pass_row(*row) for row in rows])
        with self._precision():
            found = self._log_probabilities(self._base.model, ids, labels)
        states = [self._states[slot] for slot, _, _ in rows]
        weights = [-state.scale.value / state.target_tokens for state in states]
        weight = torch.tensor(weights, dtype=found.dtype, device=found.device)
        torch.autograd.backward(found, weight[:, None].expand_as(found))
        return -found.detach().sum(dim=1)

    def _pass_row(self, slot: int, number: int, row: Row) -> PassRow:
        state = self._states[slot]
        return PassRow(slot, len(row.input_ids), (state.seed, len(state.log.steps), number))

    def _padded(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and labels, both (rows, tokens), padded on the right.

        No token attends to later padding, so attention needs no mask and can use its fast kernel.
        """
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


def _save_now(state: TrialState, config: LoraConfig, folder: Path) -> None:
    save_weights(state.weights(), config, folder)


def _fused_head(base: Base) -> LogProbabilities:
    """Return the function that computes log-probabilities: TRL's fused head, which never holds all logits in memory.

    On a CPU, that head computes logits at every position. So a function that computes them only at positions with a
    label is returned there, unless the model scales or caps its logits.
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
"""Settings in model configurations that change logits; TRL's fused head supports the same ones."""


def _labelled_only(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute `LogProbabilities` from logits at positions with a label only.

    `ids` and `labels` are (rows, tokens), the result is (rows, tokens - 1).
    """
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    mask = wanted != IGNORED
    logits = model.get_output_embeddings()(hidden[mask]).float()
    own = logits.log_softmax(-1).gather(-1, wanted[mask][:, None]).squeeze(-1)
    found: torch.Tensor = own.new_zeros(mask.shape).masked_scatter(mask, own)
    return found
