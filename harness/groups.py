"""A worker's tasks done together: adapters trained side by side in passes, and everything answered in a mixed batch.

What a pass finds is committed when it ends, and asked before the next one begins: a worker that is killed loses a pass
at most. A pass is committed as a whole, and so are the answers of a batch: what is done again after a kill is done in
the same company, in which it rounds as before.
"""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import StoreError
from harness.records import (
    DeviceKind,
    Event,
    EventKind,
    Job,
    Phase,
    PhaseCost,
    Settings,
    Status,
    Step,
    Task,
    Together,
    Training,
)
from harness.store import AnswerPass, Cache, Commit, verify_manifest

if TYPE_CHECKING:
    from harness.engine.base import Base
    from harness.engine.fused.probe import Probe
    from harness.engine.fused.training import Learned, Lot
    from harness.engine.mixed import Speaker
    from harness.engine.reference import Keep
    from harness.engine.rows import Row

Emit = Callable[[Event], None]
_SPEAKERS = 24
"""Models that answer in one batch, at most: their adapters lie in memory side by side."""
_SHARE = 0.4
"""Of free memory, what these may take."""
_SAY_EVERY = 8
"""Answers of one model between two events."""


@dataclass(frozen=True)
class Group:
    """What tasks done together need of their worker."""

    job: Job
    base: Base
    cache: Cache
    emit: Emit
    rows: Mapping[int, list[Row]]
    load: PhaseCost

    # --- training -------------------------------------------------------------------------------------------------

    def train(self, tasks: Sequence[Task], alone: list[Task]) -> Iterator[list[Task]]:
        """Train in passes, in the order of the tasks; gives the trials of each pass when it is committed.

        A pass that does not fit in memory, or in which anything else goes wrong, is tried again with half its trials.
        What cannot be trained even by itself is added to `alone`, for the reference engine to say why.
        """
        from harness.engine.fused.training import PASS_TOKENS
        from harness.engine.fused.width import width
        from harness.engine.meter import out_of_memory

        probed = self._probe(tasks)
        fit = [task for task in tasks if self._shape(task) in probed]
        alone += [task for task in tasks if task not in fit]
        if not fit:
            yield []  # what is only asked does not wait for a pass
            return
        self._free()  # of the last probe: what it held would make the passes narrower
        most = width(self.base, [_settings(task) for task in fit], PASS_TOKENS[self.job.machine.kind])
        left = _alike(fit, most)
        while left:
            some = left.pop(0)
            for task in some:
                self.emit(Event(EventKind.STARTED, task.trial))
            try:
                self._pass(some, probed)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - a smaller pass, or at last the reference engine, says whose it is
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
            # Others of as many would lack memory, too; what else went wrong is of one of these alone.
            others = [task for each in left for task in each]
            left = [*_alike(some, half), *(_alike(others, half) if short else left)]

    def _probe(self, tasks: Sequence[Task]) -> dict[Settings, Probe]:
        """What each kind of trial costs alone, without those that cannot be trained."""
        from harness.engine.fused.probe import probe

        found: dict[Settings, Probe | None] = {}
        for task in tasks:
            if (shape := self._shape(task)) in found:
                continue
            self.emit(Event(EventKind.STARTED, task.trial))
            settings = _settings(task)
            try:
                found[shape] = probe(self.base, self.rows[settings.max_length], settings)
            except Exception:  # noqa: BLE001 - as above
                traceback.print_exc()
                found[shape] = None
            if found[shape] is None:
                self._free()
        return {shape: one for shape, one in found.items() if one}

    def _shape(self, task: Task) -> Settings:
        from harness.engine.fused.probe import shape_of

        settings = _settings(task)
        return shape_of(settings, self.rows[settings.max_length])

    def _pass(self, tasks: Sequence[Task], probed: Mapping[Settings, Probe]) -> None:
        from harness.engine.fused.training import train_together
        from harness.engine.meter import Meter

        meter = Meter(self.job.machine)
        with self.cache.together() as commit:
            with meter:
                lots = [self._lot(task, commit) for task in tasks]
                found = {one.name: one for one in train_together(self.base, lots, progress=self._say_step)}
            meter.seconds -= sum(one.keeping for one in found.values())
            cost = meter.cost(Phase.TRAIN, sum(one.tokens for one in found.values()))
            together = Together(uuid.uuid4().hex[:12], len(tasks), cost)
            for task in tasks:
                learned = found[task.trial]
                save = learned.save if learned.status is Status.SUCCEEDED else None
                own = probed[self._shape(task)]
                commit.training(_ended(task, learned, together, own), save, with_saved)
        for task in tasks:
            status, message = found[task.trial].status, found[task.trial].message
            if status is not Status.SUCCEEDED:
                self.emit(Event(EventKind.FINISHED, task.trial, status, message))

    def _lot(self, task: Task, commit: Commit) -> Lot:
        from harness.engine.fused.training import Lot

        settings = _settings(task)
        return Lot(task.trial, self.rows[settings.max_length], settings, task.seed, keeper(task, commit))

    def _say_step(self, trial: str, step: Step, total: int) -> None:
        self.emit(Event(EventKind.STEP, trial, done=step.step, total=total, loss=step.loss))

    def _free(self) -> None:
        import gc

        import torch

        gc.collect()
        if self.job.machine.kind is DeviceKind.CUDA:
            torch.cuda.empty_cache()

    # --- answering ------------------------------------------------------------------------------------------------

    def answer(self, tasks: Sequence[Task]) -> list[Task]:
        """Answer what these tasks ask, timelines too, in mixed batches; gives back what is left of those that it cannot
        serve, or whose batch failed."""
        from harness.engine.mixed import attends_to_all

        spoken = [(task, one) for task in tasks for one in _spoken(task)]
        if not attends_to_all(self.base, [prompt for _, one in spoken for prompt in one.prompts], self.job.decoding):
            return list(tasks)
        served: set[str] = set()
        for some in self._batches(spoken):
            try:
                served |= self._answer_some(some)
            except StoreError:
                raise
            except Exception:  # noqa: BLE001 - one by one it will be seen whose it is
                traceback.print_exc()
            if not {one.training for _, one in some} <= served:
                self._free()
        return [_left(task, served) for task in tasks if any(one.training not in served for one in _spoken(task))]

    def _batches(self, spoken: Sequence[tuple[Task, Task]]) -> Iterator[list[tuple[Task, Task]]]:
        """Divided such that adapters leave memory for answers: they lie in full precision side by side."""
        from harness.engine.fused.width import free_bytes

        room = _SHARE * free_bytes(self.base)
        some, held = list[tuple[Task, Task]](), 0
        for task, one in spoken:
            folder = self.cache.adapter(one.training)
            size = 0 if _is_base(one) else sum(path.stat().st_size for path in folder.glob("*.safetensors"))
            if some and (len(some) == _SPEAKERS or held + size > room):
                yield some
                some, held = [], 0
            some.append((task, one))
            held += size
        if some:
            yield some

    def _speaker(self, task: Task) -> Speaker | None:
        """None for an adapter that has no place in a mixed batch."""
        from harness.engine.mixed import Speaker, read_adapter

        if _is_base(task):
            return Speaker(task.training, None, task.prompts)
        folder = self.cache.adapter(task.training)
        verify_manifest(folder)
        adapter = read_adapter(self.base, folder)
        return Speaker(task.training, adapter, task.prompts) if adapter else None

    def _answer_some(self, spoken: Sequence[tuple[Task, Task]]) -> set[str]:
        """One batch; gives the names of the models that have answered."""
        from harness.engine.meter import Meter
        from harness.engine.mixed import answer_mixed, rows_in_flight

        made = [(task, self._speaker(one)) for task, one in spoken]
        speakers = [speaker for _, speaker in made if speaker]
        if not speakers:
            return set()
        whose = {speaker.name: task for task, speaker in made if speaker}
        counts = {speaker.name: len(speaker.prompts) for speaker in speakers}

        def progress(name: str, done: int) -> None:
            if done == counts[name] or not done % _SAY_EVERY:
                self.emit(Event(EventKind.ANSWERING, whose[name].trial, done=done, total=counts[name]))

        meter, decoding = Meter(self.job.machine), self.job.decoding
        rows = rows_in_flight(self.base, speakers, decoding, least=self.job.batch_size)
        with meter:
            found = dict(answer_mixed(self.base, speakers, decoding, rows=rows, progress=progress))
        tokens = {name: sum(answer.tokens for answer in answers) for name, answers in found.items()}
        with self.cache.together() as commit:
            for name, answers in found.items():
                task = whose[name]
                phase = Phase.ANSWER_AFTER if task.settings or task.attach else Phase.ANSWER_BEFORE
                cost = meter.cost(phase, tokens[name])
                if len(found) > 1:
                    share = tokens[name] / max(1, sum(tokens.values()))
                    seconds = replace(cost.seconds, value=cost.seconds.value * share)
                    note = f"its share, by tokens, of {len(found)} models together, whose memory this is"
                    cost = replace(cost, seconds=seconds, note=note, models=len(found))
                load = (self.load,) if phase is Phase.ANSWER_BEFORE else ()
                commit.answers(name, AnswerPass(tuple(answers), (*load, cost)))
        return set(found)


def _alike(tasks: Sequence[Task], most: int) -> list[list[Task]]:
    """In as few passes of at most so many as can be, and those alike; the rest of them would be divided the same."""
    left, found = list(tasks), list[list[Task]]()
    while left:
        size = -(-len(left) // -(-len(left) // most))
        found.append(left[:size])
        left = left[size:]
    return found


def keeper(task: Task, commit: Commit) -> Keep | None:
    """What takes the adapter of each epoch that the task's timeline asks for, to be committed with the training."""
    wanted = {each.epoch: each.id for each in task.timeline}

    def keep(epoch: int, save: Callable[[Path], None]) -> None:
        if epoch in wanted:
            commit.training(Training(wanted[epoch], Status.SUCCEEDED, "", (), None), save)

    return keep if wanted else None


def with_saved(training: Training, folder: Path) -> Training:
    """With what of its fingerprint only the saved adapter shows."""
    from harness.engine.fingerprint import with_saved

    if training.fingerprint is None:
        return training
    return replace(training, fingerprint=with_saved(training.fingerprint, folder))


def _ended(task: Task, learned: Learned, together: Together, probed: Probe) -> Training:
    return Training(
        task.training,
        learned.status,
        learned.message,
        learned.steps,
        probed.alone(len(learned.steps), learned.tokens),
        learned.trainable_parameters,
        learned.supervised_tokens,
        learned.fingerprint,
        together=together,
    )


def _is_base(task: Task) -> bool:
    return task.settings is None and not task.attach


def _left(task: Task, served: Collection[str]) -> Task:
    """What of a task is still to be asked."""
    later = tuple(each for each in task.timeline if each.id not in served)
    return replace(task, prompts=() if task.training in served else task.prompts, timeline=later)


def _spoken(task: Task) -> list[Task]:
    """A task's own prompts and its timeline's, where there are any."""
    epochs = (replace(task, training=each.id, prompts=each.prompts) for each in task.timeline)
    return [one for one in (task, *epochs) if one.prompts]


def _settings(task: Task) -> Settings:
    if task.settings is None:
        raise ValueError("the base is not trained")
    return task.settings
