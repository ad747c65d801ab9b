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
from harness.engine.causal_masks import one_sequence_per_row
from harness.engine.cuda_graphs import Capture, cuda_graph
from harness.engine.loading import (
    Base,
    check_precision,
    check_quantization,
    check_trainable,
    dequantised,
    drops,
    untouched,
)
from harness.engine.pointwise import fused_pointwise
from harness.engine.tokenization import Row
from harness.engine.trainers.fused.batch import Batch, batch_of, targets_of
from harness.engine.trainers.fused.concurrency import shared_pass
from harness.engine.trainers.fused.graphs import PassGraphs, padded_targets, padded_tokens
from harness.engine.trainers.fused.initialisation import (
    InitialAdapter,
    initial_adapters,
    save_weights,
    training_dtype,
)
from harness.engine.trainers.fused.layout import PassRow
from harness.engine.trainers.fused.passes import divided
from harness.engine.trainers.fused.stack import Stack
from harness.engine.trainers.fused.trial_state import SavedState, TrialState
from harness.engine.trainers.protocol import TrainingResult, TrialInput, TrialProgress
from harness.engine.trainers.sft import TrainingLog, sft_arguments

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from trl import SFTConfig

    from harness.engine.trainers.fused.layer import Pair
    from harness.engine.trainers.fused.recomputation import Memory

LogProbabilities = Callable[[Any, "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Maps a model, ids and labels, both (rows, tokens), to log-probabilities of labels[:, 1:], (rows, tokens - 1).

The log-probability of an ignored label is 0."""
WORTHWHILE = 8
"""Number of steps that must be left for CUDA graphs, whose capture takes as long as a few steps."""
OVERHEAD = {DeviceKind.CPU: 100, DeviceKind.CUDA: 1024}
"""Fixed cost of a pass in tokens (on a GPU: dequantising the base and launching kernels); by device kind."""


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
    capture: Capture = cuda_graph,
    memory: Memory | None = None,
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
    with contextlib.ExitStack() as undo:
        for context in (untouched(base.model), dequantised(base), fused_pointwise(base), one_sequence_per_row()):
            undo.enter_context(context)
        yield from _Run(base, trials, initial, progress, log_probabilities, pass_tokens, capture, memory, undo).go()


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
        capture: Capture,
        memory: Memory | None,
        undo: contextlib.ExitStack,
    ) -> None:
        """Put the adapters on the base. What must be undone goes to `undo` at once: any line may run out of memory."""
        import torch

        self._base = base
        kind, precision = base.machine.kind, base.machine.compute_dtype
        self._autocast = precision if kind is DeviceKind.CUDA and precision in ("float16", "bfloat16") else None
        self._limit, self._overhead = pass_tokens or shared_pass(base).tokens, OVERHEAD[kind]
        self._log_probabilities = _head(base, log_probabilities)
        self._trials, self._configs = list(trials), [one.config for one in initial]
        self._states = [self._state(trial, one, progress) for trial, one in zip(trials, initial, strict=True)]
        # The stack is in compute precision. The optimizers work on the trial states' weights in full precision.
        held = base.model.dtype if self._autocast else None
        self.stack = Stack(base.model, [one.adapter for one in initial], dtype=held)
        undo.callback(self.stack.remove)
        buffer = torch.empty(max(each.size for each in self._states), dtype=training_dtype(base), device=base.device)
        for state in self._states:
            state.use_gradient_buffer(buffer)
        from harness.engine.trainers.fused.recomputation import GpuMemory, Recomputation

        memory = memory or (GpuMemory(base.machine) if kind is DeviceKind.CUDA else None)
        self._recomputation = Recomputation(base.model, memory) if memory else None
        self._round = 0
        self._like = torch.empty(0, dtype=training_dtype(base), device=base.device)
        self._graphs = PassGraphs(self._run, capture)
        possible = kind is DeviceKind.CUDA or capture is not cuda_graph
        self._graphable = possible and not drops(base.model) and not _changes_logits(base)
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
        while self._states:
            with self._keeping():
                losses = self._backward()
            if not self._round:
                for state in self._states:
                    state.check(self.stack.reached())
            self._step(losses)
            yield from self._leave()
            self._round += 1

    @property
    def _worthwhile(self) -> bool:
        """Whether so many steps are left that CUDA graphs pay off."""
        return max(state.total - len(state.log.steps) for state in self._states) >= WORTHWHILE

    def _keeping(self) -> contextlib.AbstractContextManager[None]:
        """In the second round, find how many layers can keep their activations; the first shows what else is needed."""
        if self._recomputation is None or self._round != 1:
            return contextlib.nullcontext()
        rows = sum(s.settings.batch_size * s.settings.gradient_accumulation for s in self._states)
        longest = max(len(row.input_ids) for state in self._states for row in state.rows)
        return self._recomputation.measured(min(self._limit, rows * padded_tokens(longest)))

    def _leave(self) -> Iterator[FusedResult]:
        """Yield the results of the trials that have ended, and remove these."""
        ended = {slot for slot, state in enumerate(self._states) if state.ended}
        if ended:
            yield from [self._result(slot) for slot in sorted(ended)]
            for listed in (self._states, self._trials, self._configs):
                listed[:] = [each for slot, each in enumerate(listed) if slot not in ended]
            self._graphs.drop()
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

        If memory runs out, all is repeated without kept activations, then without graphs, then with smaller passes, and
        later rounds do the same.
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
                groups = divided(owners, lengths, overhead=self._overhead, limit=self._limit)
                passes = [[rows[index] for index in sorted(group)] for group in groups]
                found = iter(torch.cat([self._pass(some) for some in passes]).tolist())
            except torch.OutOfMemoryError:
                if self._limit <= max(lengths):
                    raise
            else:
                for slot, _, row in itertools.chain(*passes):
                    losses[slot] -= sum(itertools.islice(found, len(targets_of(row))))
                return [loss / state.target_tokens for loss, state in zip(losses, self._states, strict=True)]
            if self._recomputation and self._recomputation.kept:
                self._recomputation.keep(0)
                self._graphs.drop()
            elif self._graphs.drop():
                self._graphs.usable = False
            else:
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

    def _pass(self, rows: Sequence[tuple[int, int, Row]]) -> torch.Tensor:
        """Run forward and backward for some rows, sorted by slot; return the log-probabilities of their targets.

        `rows` are (slot, number within the window, row), and the result is (targets,), row by row.
        """
        self.stack.enter([self._pass_row(*row) for row in rows])
        states = [self._states[slot] for slot, _, _ in rows]
        weights = [-state.scale.value / state.target_tokens for state in states]
        given = [row for _, _, row in rows]
        targets, longest = sum(len(targets_of(row)) for row in given), max(len(row.input_ids) for row in given)
        make = partial(batch_of, given, weights, self._like, pad=self._base.tokenizer.pad_token_id)
        pattern, tokens = self.stack.pattern, padded_tokens(longest)
        shape = (len(rows), tokens, padded_targets(targets, tokens * len(rows)))
        if not self._graphable or pattern is None or not (self._worthwhile or self._graphs.has(shape, pattern)):
            return self._ended(self._run(make()))
        batch, capture = make(tokens=shape[1], targets=shape[2]), self._round > 1 and self._worthwhile
        return self._ended(self._graphs.run(batch, pattern, capture=capture)[:targets])

    def _ended(self, found: torch.Tensor) -> torch.Tensor:
        self.stack.end_pass()
        return found

    def _run(self, batch: Batch) -> torch.Tensor:
        """Run forward and backward for a batch; return the log-probabilities of its targets, (targets,)."""
        import torch

        with self._precision():
            found = self._log_probabilities(self._base.model, batch)
        torch.autograd.backward(found, batch.weights.to(found.dtype))
        return found.detach()

    def _pass_row(self, slot: int, number: int, row: Row) -> PassRow:
        state = self._states[slot]
        return PassRow(slot, len(row.input_ids), (state.seed, len(state.log.steps), number))

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        import torch

        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast("cuda", dtype=getattr(torch, self._autocast))


def _save_now(state: TrialState, config: LoraConfig, folder: Path) -> None:
    save_weights(state.weights(), config, folder)


def _head(base: Base, given: LogProbabilities | None) -> Callable[[Any, Batch], torch.Tensor]:
    """Return the function that computes the log-probabilities of a batch's targets, (targets,).

    It is `given`, if that is not None. A model that scales or caps its logits has TRL's fused head, and all others have
    one that computes logits at the positions of targets only. Neither holds all logits in memory.
    """
    if given is None and not _changes_logits(base):
        from harness.engine.trainers.fused.head import log_probabilities

        return log_probabilities
    rectangular = given or _fused_head(base)

    def of_targets(model: Any, batch: Batch) -> torch.Tensor:
        import torch

        found = rectangular(model, batch.ids, batch.labels)
        return torch.nn.functional.pad(found, (0, 1)).flatten().index_select(0, batch.positions)

    return of_targets


def _fused_head(base: Base) -> LogProbabilities:
    """Return a function that computes log-probabilities with TRL's fused head."""
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(base.model)

    def log_probabilities(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(input_ids=ids, labels=labels, fused_lm_head=True).log_probs
        return found

    return log_probabilities


def _changes_logits(base: Base) -> bool:
    """Whether the model scales or caps its logits."""
    config = base.model.config.get_text_config()
    return any(getattr(config, name, None) for name in _LOGITS_CHANGED)


_LOGITS_CHANGED = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
)  # fmt: skip
"""Settings in model configurations that change logits; TRL's fused head supports the same ones."""
