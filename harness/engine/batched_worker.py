"""Trains several tasks of a job together, and lets several models answer in one batch.

Here, a pass is the training of several tasks together, from start to end. Its results are committed as a whole when it
ends, and its adapters answer before the next pass begins, so a killed worker loses at most one pass. The answers of a
batch are committed as a whole, too. A restarted worker therefore forms the same passes and batches as the killed one
would have, and gets the same rounding.
"""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path

from harness.core.answers import Answer
from harness.core.engines import Engine
from harness.core.errors import StoreError
from harness.core.job import Event, EventKind, Job, Task
from harness.core.measurement import Phase, PhaseCost
from harness.core.passes import even_parts
from harness.core.settings import Settings, fusible
from harness.core.suite import Example
from harness.core.training_outcome import Status, Step, Together, Training
from harness.core.units import DeviceKind
from harness.engine import fingerprint
from harness.engine.generation.adapter_reader import AdapterReader
from harness.engine.generation.continuous_batching import (
    Request,
    answer_requests,
    attends_to_all,
    rows_at_once,
)
from harness.engine.loading import Base
from harness.engine.meter import Meter, out_of_memory
from harness.engine.threads import in_threads
from harness.engine.tokenization import Row
from harness.engine.trainers.fused.concurrency import concurrency, free_bytes
from harness.engine.trainers.fused.probe import Probe, probe, shape_of
from harness.engine.trainers.protocol import Keep, Trainer, TrainingResult, TrialInput
from harness.engine.training_rows import TrainingRows
from harness.storage.cache import AnswerPass, Cache, Commit, state_id
from harness.storage.manifest import verify_manifest

Emit = Callable[[Event], None]
_ADAPTER_SHARE = 0.4
"""Largest share of the free memory that the adapters of the models in one batch may take."""
_REPORT_EVERY = 8
"""A progress event is sent each time a model has given this many answers."""


class _PassEnd(Enum):
    """How a pass ended."""

    COMMITTED = auto()
    OUT_OF_MEMORY = auto()
    FAILED = auto()


@dataclass(frozen=True)
class Tools:
    """The trainers and the answering function that a worker uses; tests replace some of them."""

    trainers: Mapping[Engine, Trainer]
    answer_requests: Callable[..., Iterator[tuple[str, list[Answer]]]] = answer_requests
    models_at_once: int = 24
    """Largest number of models that answer in one batch, with all of their adapters in memory."""


@dataclass(frozen=True)
class Known:
    """What jobs on one base have found out, for the jobs after them."""

    adapters: AdapterReader
    probes: dict[tuple[Settings, tuple[Example, ...]], Probe] = field(default_factory=dict)
    """What training a trial alone costs, by the kind of trial and the suite's rows."""


@dataclass(frozen=True)
class BatchedWorker:
    """Trains and answers several tasks at once, on the base that a worker has loaded."""

    job: Job
    base: Base
    cache: Cache
    emit: Emit
    rows: TrainingRows
    load: PhaseCost
    """Cost of loading the base."""
    tools: Tools
    known: Known

    # --- training -------------------------------------------------------------------------------------------------

    def train(self, tasks: Sequence[Task], alone: list[Task]) -> Iterator[list[Task]]:
        """Train the tasks in passes, in their order, and yield the tasks of each pass when it is committed.

        If a pass fails, its tasks are trained again in two smaller passes. A task that fails in a pass of its own, or
        already in the probe, is added to `alone`: the reference trainer will then train it, or report why it cannot.
        """
        probed = self._probe([task for task in tasks if not self._known_cost(task)])
        fit = [task for task in tasks if self._known_cost(task) or self._shape(task) in probed]
        alone += [task for task in tasks if task not in fit]
        if not fit:
            yield []  # without a pass, tasks that only answer can start now
            return
        self._free()
        left = even_parts(fit, concurrency(self.base, [_settings(task) for task in fit], self.job.width))
        while left:
            some = left.pop(0)
            end = self._try_pass(some, probed)
            if end is _PassEnd.COMMITTED:
                yield some
                continue
            self._free()
            if len(some) == 1:
                alone += some
                yield []
            else:
                left = _halved(some, left, end)

    def _try_pass(self, tasks: Sequence[Task], probed: Mapping[Settings, Probe]) -> _PassEnd:
        """Train these tasks in one pass and return how it ended, without the exception: its traceback holds memory."""
        for task in tasks:
            self.emit(Event(EventKind.STARTED, task.trial))
        try:
            self._train_pass(tasks, probed)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a smaller pass, or at last the reference trainer, will show the cause
            traceback.print_exc()
            return _PassEnd.OUT_OF_MEMORY if out_of_memory(error) else _PassEnd.FAILED
        return _PassEnd.COMMITTED

    def _probe(self, tasks: Sequence[Task]) -> dict[Settings, Probe]:
        """For each kind of trial, measure what training one trial alone costs, once; leave out kinds that fail.

        The steps of all trials of one kind cost the same (see `shape_of`), except that their seeds may draw other
        rehearsal rows. The trial with the longest of these is measured, because memory peaks with the longest row.
        """
        rows = self.job.examples
        found: dict[Settings, Probe | None] = {
            shape: one for (shape, own), one in self.known.probes.items() if own == rows
        }
        trainer = self.tools.trainers[self.job.engine.alone]
        for task in sorted(tasks, key=lambda task: -_longest(self.rows.of(task))):
            if (shape := self._shape(task)) in found:
                continue
            self.emit(Event(EventKind.STARTED, task.trial))
            try:
                found[shape] = probe(self.base, self.rows.of(task), _settings(task), trainer)
            except Exception:  # noqa: BLE001 - the reference trainer will show the cause
                traceback.print_exc()
                found[shape] = None
            if found[shape] is None:
                self._free()
        measured = {shape: one for shape, one in found.items() if one}
        self.known.probes.update({(shape, rows): one for shape, one in measured.items()})
        return measured

    def _shape(self, task: Task) -> Settings:
        return shape_of(_settings(task), self.rows.longest(task))

    def _train_pass(self, tasks: Sequence[Task], probed: Mapping[Settings, Probe]) -> None:
        """Train these tasks in one pass and commit all of their results together."""
        meter, trainer = Meter(self.job.machine), self.tools.trainers[Engine.FUSED]
        with self.cache.together() as commit:
            with meter:
                trials = [self._trial(task, commit) for task in tasks]
                found = {one.name: one for one in trainer.train(self.base, trials, progress=self._report_step)}
            meter.seconds -= sum(one.keeping for one in found.values())
            before = {task.trial: earlier_part(task, self.cache) for task in tasks}
            known = sum(one.cost.tokens for one in before.values() if one and one.cost)
            cost = meter.cost(Phase.TRAIN, sum(one.tokens for one in found.values()) - known)
            together = Together(uuid.uuid4().hex[:12], len(tasks), cost)

            def save(task: Task) -> None:
                result = found[task.trial]
                alone = self._alone(task, probed, result)
                own = replace(together, earlier=_earlier_passes(before[task.trial]))
                commit_training(commit, task, training_of(task, result, alone, own), result)

            # Writing and hashing files of a hundred megabytes keeps one thread busy for a while.
            in_threads(save, tasks)
        for task in tasks:
            status, message = found[task.trial].status, found[task.trial].message
            if status is not Status.SUCCEEDED:
                self.emit(Event(EventKind.FINISHED, task.trial, status, message))

    def _alone(self, task: Task, probed: Mapping[Settings, Probe], result: TrainingResult) -> PhaseCost:
        """Return what the whole training up to here costs if the trial is trained alone.

        A training that continues costs as much for each step as its first part, which ended with a whole epoch.
        """
        before = self._known_cost(task)
        if before and before.cost:
            seconds = before.cost.seconds.value * len(result.steps) / len(before.steps)
            return replace(before.cost, seconds=replace(before.cost.seconds, value=seconds), tokens=result.tokens)
        return probed[self._shape(task)].alone(len(result.steps), result.tokens)

    def _known_cost(self, task: Task) -> Training | None:
        """Return the first part of a training if the cost of training it alone is known from a probe."""
        before = earlier_part(task, self.cache)
        return before if before and before.steps and before.cost and before.cost.probes else None

    def _trial(self, task: Task, commit: Commit) -> TrialInput:
        return trial_of(task, self.rows, commit)

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
        """Answer the prompts of these tasks and of the epochs in their timelines, with many models in one batch.

        Returns what must be answered one model at a time: the tasks, or parts of tasks, that cannot be answered in a
        batch or whose batch failed.
        """
        asked = [(task, part) for task in tasks for part in _parts(task)]
        prompts = [prompt for _, part in asked for prompt in part.prompts]
        if not attends_to_all(self.base, prompts, self.job.decoding):
            return list(tasks)
        self._free()  # a trainer refers to itself: it takes memory until garbage collection
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
        """Divide (task, part) pairs into batches whose adapters leave enough memory for the answers."""
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
        """Return the request for a part of a task, with its adapter; None if the adapter cannot be used in a batch."""
        if _is_base(part):
            return Request(part.training, None, part.prompts)
        folder = self.cache.adapter(part.training)
        verify_manifest(folder)
        adapter = self.known.adapters.read(folder)
        return Request(part.training, adapter, part.prompts) if adapter else None

    def _answer_batch(self, asked: Sequence[tuple[Task, Task]]) -> set[str]:
        """Answer one batch and commit the answers; return the training ids of the models that answered."""
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


# --- shared by the batched worker and the worker -------------------------------------------------------------------


def trial_of(task: Task, rows: TrainingRows, commit: Commit) -> TrialInput:
    """Return the trainer's input for a task. The training will commit the adapter of each epoch in its timeline."""
    state = commit.cache.adapter(state_id(task.resume)) if task.resume else None
    if state:
        verify_manifest(state)
    return TrialInput(
        task.trial, rows.of(task), _settings(task), task.seed, _keep_epochs(task, commit), task.until, state
    )


def training_of(task: Task, result: TrainingResult, cost: PhaseCost | None, together: Together | None) -> Training:
    """Return the record of a training; `together` describes the pass that it shared with other trials, if any."""
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


def earlier_part(task: Task, cache: Cache) -> Training | None:
    """Return the first part of a training that continues; None if it started from nothing."""
    return cache.training(task.resume) if task.resume else None


def commit_training(commit: Commit, task: Task, training: Training, result: TrainingResult) -> None:
    """Add a training to a commit, with its adapter if it succeeded, and with its state if it stopped before its end."""
    succeeded = result.status is Status.SUCCEEDED
    commit.training(training, result.save if succeeded else None, with_saved)
    if succeeded and task.until:
        state = Training(state_id(task.training), Status.SUCCEEDED, "", (), None)
        commit.training(state, result.save_state)


def _earlier_passes(before: Training | None) -> tuple[Together, ...]:
    known = before.together if before else None
    return (*known.earlier, replace(known, earlier=())) if known else ()


def with_saved(training: Training, folder: Path) -> Training:
    """Return the training with a fingerprint that also describes the adapter file saved in `folder`."""
    if training.fingerprint is None:
        return training
    return replace(training, fingerprint=fingerprint.with_saved(training.fingerprint, folder))


def answer_phase(task: Task) -> Phase:
    """Return the phase in which a task's prompts are answered: before training for the base, otherwise after."""
    return Phase.ANSWER_BEFORE if _is_base(task) else Phase.ANSWER_AFTER


def can_batch(task: Task, engine: Engine) -> bool:
    """Whether a task can share a pass or a batch with others. With the reference trainer, no training can."""
    if engine is not Engine.FUSED:
        return not task.train
    return task.settings is None or fusible(task.settings)


def _keep_epochs(task: Task, commit: Commit) -> Keep | None:
    """Return a callback that commits the adapter of each epoch in the task's timeline; None without a timeline."""
    wanted = {each.epoch: each.id for each in task.timeline}

    def keep(epoch: int, save: Callable[[Path], None]) -> None:
        if epoch in wanted:
            commit.training(Training(wanted[epoch], Status.SUCCEEDED, "", (), None), save)

    return keep if wanted else None


def _halved(failed: Sequence[Task], left: Sequence[Sequence[Task]], end: _PassEnd) -> list[list[Task]]:
    """Return the passes to try next: first the failed pass in two halves, then the remaining passes.

    If memory ran out, the remaining tasks are also regrouped into passes no larger than half of the failed one. After
    any other error they stay as they are, because the cause is one of the failed tasks.
    """
    half = -(-len(failed) // 2)
    if end is _PassEnd.OUT_OF_MEMORY:
        return [*even_parts(failed, half), *even_parts([task for each in left for task in each], half)]
    return [*even_parts(failed, half), *map(list, left)]


def _share(cost: PhaseCost, share: float, models: int) -> PhaseCost:
    """Return one model's part of a batch's cost: `share` of the time, and the memory of the whole batch."""
    seconds = replace(cost.seconds, value=cost.seconds.value * share)
    note = f"its share, by tokens, of {models} models together, whose memory this is"
    return replace(cost, seconds=seconds, note=note, models=models)


def _is_base(task: Task) -> bool:
    return task.settings is None and not task.attach


def _parts(task: Task) -> list[Task]:
    """Return the task and a copy of it for each epoch of its timeline; leave out those without prompts."""
    epochs = (replace(task, training=each.id, prompts=each.prompts) for each in task.timeline)
    return [part for part in (task, *epochs) if part.prompts]


def _left(task: Task, answered: Collection[str]) -> Task:
    """Return what is left of a task: its prompts and its timeline's epochs, except training ids in `answered`."""
    later = tuple(each for each in task.timeline if each.id not in answered)
    return replace(task, prompts=() if task.training in answered else task.prompts, timeline=later)


def _longest(rows: Sequence[Row]) -> int:
    return max((len(row.input_ids) for row in rows), default=0)


def _settings(task: Task) -> Settings:
    if task.settings is None:
        raise ValueError("the base is not trained")
    return task.settings
