"""Does tasks of a job together: adapters are trained side by side in passes, and many models answer in one batch.

The results of a pass are committed when it ends, and its adapters answer before the next pass begins, so a worker that
is killed loses one pass at most. A pass is committed as a whole, and so are the answers of a batch. After a kill, work
is therefore repeated with the same trials in a pass and the same models in a batch, and rounds as it did before.
"""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.answers import Answer
from harness.core.engines import Engine
from harness.core.errors import StoreError
from harness.core.job import Event, EventKind, Job, Task
from harness.core.measurement import Phase, PhaseCost
from harness.core.settings import Settings, fusible
from harness.core.training import Status, Step, Together, Training
from harness.core.units import DeviceKind
from harness.engine import fingerprint
from harness.engine.generation.continuous_batching import (
    Request,
    answer_requests,
    attends_to_all,
    read_adapter,
    rows_at_once,
)
from harness.engine.loading import Base
from harness.engine.meter import Meter, out_of_memory
from harness.engine.tokenization import Row
from harness.engine.trainers.fused.concurrency import concurrency, free_bytes
from harness.engine.trainers.fused.probe import Probe, probe, shape_of
from harness.engine.trainers.fused.training import PASS_TOKENS
from harness.engine.trainers.protocol import Keep, Trainer, TrainingResult, TrialInput
from harness.storage.cache import AnswerPass, Cache, Commit
from harness.storage.manifest import verify_manifest

Emit = Callable[[Event], None]
_ADAPTER_SHARE = 0.4
"""Share of free memory that their adapters may take."""
_REPORT_EVERY = 8
"""Answers of one model between two progress events."""


@dataclass(frozen=True)
class Tools:
    """What a worker trains and answers with; tests replace parts of it."""

    trainers: Mapping[Engine, Trainer]
    answer_requests: Callable[..., Iterator[tuple[str, list[Answer]]]] = answer_requests
    models_at_once: int = 24
    """Most models in one batch: their adapters are in memory side by side."""


@dataclass(frozen=True)
class BatchedWorker:
    """Trains and answers tasks together, over the base that a worker has loaded."""

    job: Job
    base: Base
    cache: Cache
    emit: Emit
    rows: Mapping[int, list[Row]]
    """Training rows by `max_length`."""
    load: PhaseCost
    tools: Tools

    # --- training -------------------------------------------------------------------------------------------------

    def train(self, tasks: Sequence[Task], alone: list[Task]) -> Iterator[list[Task]]:
        """Train the tasks in passes, in their order, and yield the tasks of each pass when it is committed.

        If a pass runs out of memory or fails otherwise, it is repeated with half its trials. A task that fails in a
        pass of its own is added to `alone`: the reference trainer will report the reason.
        """
        probed = self._probe(tasks)
        fit = [task for task in tasks if self._shape(task) in probed]
        alone += [task for task in tasks if task not in fit]
        if not fit:
            yield []  # tasks that only answer need not wait for a pass
            return
        self._free()  # memory of the last probe, which would otherwise lower the concurrency
        most = concurrency(self.base, [_settings(task) for task in fit], PASS_TOKENS[self.job.machine.kind])
        left = _even_passes(fit, most)
        while left:
            some = left.pop(0)
            for task in some:
                self.emit(Event(EventKind.STARTED, task.trial))
            try:
                self._train_pass(some, probed)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - a smaller pass, or at last the reference trainer, shows the cause
                traceback.print_exc()
                short = out_of_memory(error)
            else:
                yield some
                continue
            self._free()
            if len(some) == 1:
                alone += some
                yield []
                continue
            half = -(-len(some) // 2)
            # Other passes of this size would run out of memory, too; any other error comes from one of these trials.
            others = [task for each in left for task in each]
            left = [*_even_passes(some, half), *(_even_passes(others, half) if short else left)]

    def _probe(self, tasks: Sequence[Task]) -> dict[Settings, Probe]:
        """Measure what each kind of trial costs alone; kinds that cannot be trained are left out."""
        found: dict[Settings, Probe | None] = {}
        trainer = self.tools.trainers[Engine.REFERENCE]
        for task in tasks:
            if (shape := self._shape(task)) in found:
                continue
            self.emit(Event(EventKind.STARTED, task.trial))
            settings = _settings(task)
            try:
                found[shape] = probe(self.base, self.rows[settings.max_length], settings, trainer)
            except Exception:  # noqa: BLE001 - the reference trainer will show the cause
                traceback.print_exc()
                found[shape] = None
            if found[shape] is None:
                self._free()
        return {shape: one for shape, one in found.items() if one}

    def _shape(self, task: Task) -> Settings:
        settings = _settings(task)
        return shape_of(settings, self.rows[settings.max_length])

    def _train_pass(self, tasks: Sequence[Task], probed: Mapping[Settings, Probe]) -> None:
        """Train these tasks side by side and commit all of them together."""
        meter, trainer = Meter(self.job.machine), self.tools.trainers[Engine.FUSED]
        with self.cache.together() as commit:
            with meter:
                trials = [self._trial(task, commit) for task in tasks]
                found = {one.name: one for one in trainer.train(self.base, trials, progress=self._report_step)}
            meter.seconds -= sum(one.keeping for one in found.values())
            cost = meter.cost(Phase.TRAIN, sum(one.tokens for one in found.values()))
            together = Together(uuid.uuid4().hex[:12], len(tasks), cost)
            for task in tasks:
                result = found[task.trial]
                save = result.save if result.status is Status.SUCCEEDED else None
                alone = probed[self._shape(task)].alone(len(result.steps), result.tokens)
                commit.training(training_of(task, result, alone, together), save, with_saved)
        for task in tasks:
            status, message = found[task.trial].status, found[task.trial].message
            if status is not Status.SUCCEEDED:
                self.emit(Event(EventKind.FINISHED, task.trial, status, message))

    def _trial(self, task: Task, commit: Commit) -> TrialInput:
        return trial_of(task, self.rows[_settings(task).max_length], commit)

    def _report_step(self, trial: str, step: Step, total: int) -> None:
        self.emit(Event(EventKind.STEP, trial, done=step.step, total=total, loss=step.loss))

    def _free(self) -> None:
        import gc

        import torch

        gc.collect()
        if self.job.machine.kind is DeviceKind.CUDA:
            torch.cuda.empty_cache()

    # --- answering ------------------------------------------------------------------------------------------------

    def answer(self, tasks: Sequence[Task]) -> list[Task]:
        """Answer the prompts of these tasks and of their timelines, with many models in one batch.

        Returns the tasks, or parts of them, that cannot be answered in a batch or whose batch failed.
        """
        asked = [(task, part) for task in tasks for part in _parts(task)]
        prompts = [prompt for _, part in asked for prompt in part.prompts]
        if not attends_to_all(self.base, prompts, self.job.decoding):
            return list(tasks)
        answered: set[str] = set()
        for some in self._batches(asked):
            try:
                answered |= self._answer_batch(some)
            except StoreError:
                raise
            except Exception:  # noqa: BLE001 - answering one model at a time will show the cause
                traceback.print_exc()
            if not {part.training for _, part in some} <= answered:
                self._free()
        return [_left(task, answered) for task in tasks if any(part.training not in answered for part in _parts(task))]

    def _batches(self, asked: Sequence[tuple[Task, Task]]) -> Iterator[list[tuple[Task, Task]]]:
        """Divide the parts of tasks into batches whose adapters leave memory for answers."""
        room = _ADAPTER_SHARE * free_bytes(self.base)
        some, held = list[tuple[Task, Task]](), 0
        for task, part in asked:
            folder = self.cache.adapter(part.training)
            size = 0 if _is_base(part) else sum(path.stat().st_size for path in folder.glob("*.safetensors"))
            if some and (len(some) == self.tools.models_at_once or held + size > room):
                yield some
                some, held = [], 0
            some.append((task, part))
            held += size
        if some:
            yield some

    def _request(self, part: Task) -> Request | None:
        """Read the part's adapter; None if it cannot be used in a batch."""
        if _is_base(part):
            return Request(part.training, None, part.prompts)
        folder = self.cache.adapter(part.training)
        verify_manifest(folder)
        adapter = read_adapter(self.base, folder)
        return Request(part.training, adapter, part.prompts) if adapter else None

    def _answer_batch(self, asked: Sequence[tuple[Task, Task]]) -> set[str]:
        """Answer one batch and commit it; return the names of the models that have answered."""
        made = [(task, self._request(part)) for task, part in asked]
        requests = [request for _, request in made if request]
        if not requests:
            return set()
        tasks = {request.name: task for task, request in made if request}
        counts = {request.name: len(request.prompts) for request in requests}

        def progress(name: str, done: int) -> None:
            if done == counts[name] or not done % _REPORT_EVERY:
                self.emit(Event(EventKind.ANSWERING, tasks[name].trial, done=done, total=counts[name]))

        meter, decoding = Meter(self.job.machine), self.job.decoding
        rows = rows_at_once(self.base, requests, decoding, least=self.job.batch_size)
        with meter:
            found = dict(self.tools.answer_requests(self.base, requests, decoding, rows=rows, progress=progress))
        tokens = {name: sum(answer.tokens for answer in answers) for name, answers in found.items()}
        with self.cache.together() as commit:
            for name, answers in found.items():
                phase = answer_phase(tasks[name])
                cost = meter.cost(phase, tokens[name])
                if len(found) > 1:
                    cost = _share(cost, tokens[name] / max(1, sum(tokens.values())), len(found))
                load = (self.load,) if phase is Phase.ANSWER_BEFORE else ()
                commit.answers(name, AnswerPass(tuple(answers), (*load, cost)))
        return set(found)


# --- what the batched worker and the worker share ----------------------------------------------------------------


def trial_of(task: Task, rows: Sequence[Row], commit: Commit) -> TrialInput:
    """Return the trainer's input for a task; adapters of its timeline's epochs are committed with the training."""
    return TrialInput(task.trial, rows, _settings(task), task.seed, _keep_epochs(task, commit))


def training_of(task: Task, result: TrainingResult, cost: PhaseCost | None, together: Together | None) -> Training:
    """Return the record of a training; `together` is the pass that it shared with other trials."""
    return Training(
        task.training,
        result.status,
        result.message,
        result.steps,
        cost,
        result.trainable_parameters,
        result.supervised_tokens,
        result.fingerprint,
        together=together,
    )


def with_saved(training: Training, folder: Path) -> Training:
    """Add to a training's fingerprint the fields that only the saved adapter shows."""
    if training.fingerprint is None:
        return training
    return replace(training, fingerprint=fingerprint.with_saved(training.fingerprint, folder))


def answer_phase(task: Task) -> Phase:
    """Return the phase in which a task's prompts are answered: before training for the base, else after."""
    return Phase.ANSWER_BEFORE if _is_base(task) else Phase.ANSWER_AFTER


def can_batch(task: Task, engine: Engine) -> bool:
    """Whether a task can be done together with others; the reference trainer trains one trial after another."""
    if engine is not Engine.FUSED:
        return not task.train
    return task.settings is None or fusible(task.settings)


def _keep_epochs(task: Task, commit: Commit) -> Keep | None:
    """Return what commits the adapter of each epoch of the task's timeline; None without a timeline."""
    wanted = {each.epoch: each.id for each in task.timeline}

    def keep(epoch: int, save: Callable[[Path], None]) -> None:
        if epoch in wanted:
            commit.training(Training(wanted[epoch], Status.SUCCEEDED, "", (), None), save)

    return keep if wanted else None


def _even_passes(tasks: Sequence[Task], most: int) -> list[list[Task]]:
    """Divide tasks into as few passes of at most `most` as possible, of nearly equal size.

    Dividing the tasks that remain after some passes gives the same passes.
    """
    left, found = list(tasks), list[list[Task]]()
    while left:
        size = -(-len(left) // -(-len(left) // most))
        found.append(left[:size])
        left = left[size:]
    return found


def _share(cost: PhaseCost, share: float, models: int) -> PhaseCost:
    """Return one model's share of a batch's time; memory stays that of the whole batch."""
    seconds = replace(cost.seconds, value=cost.seconds.value * share)
    note = f"its share, by tokens, of {models} models together, whose memory this is"
    return replace(cost, seconds=seconds, note=note, models=models)


def _is_base(task: Task) -> bool:
    return task.settings is None and not task.attach


def _parts(task: Task) -> list[Task]:
    """Return the task with its own prompts, and one task for each epoch of its timeline; only those with prompts."""
    epochs = (replace(task, training=each.id, prompts=each.prompts) for each in task.timeline)
    return [part for part in (task, *epochs) if part.prompts]


def _left(task: Task, answered: Collection[str]) -> Task:
    """Return the task without the prompts that are answered."""
    later = tuple(each for each in task.timeline if each.id not in answered)
    return replace(task, prompts=() if task.training in answered else task.prompts, timeline=later)


def _settings(task: Task) -> Settings:
    if task.settings is None:
        raise ValueError("the base is not trained")
    return task.settings
