"""Makes the jobs of workers: the trainings and prompts of work items that have no record yet."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness.core.job import Job, Prompt, Snapshot, Task
from harness.core.model import AdapterRef
from harness.core.rehearsal import RehearsalRow
from harness.core.training_outcome import Status, Training
from harness.core.units import DeviceKind
from harness.models import foreign_adapters
from harness.runner.executors.protocol import Place
from harness.runner.recorder import Recorder
from harness.runner.work_items import WorkItem
from harness.storage.cache import Cache, state_id

_BATCH = {DeviceKind.CPU: 64, DeviceKind.CUDA: 16}
"""Prompts answered in one batch. With 16, the keys and values of a 7B model's attention fit into a T4."""


@dataclass(frozen=True)
class Jobs:
    """Makes jobs. A job leaves out trainings and answers that are already in the cache."""

    recorder: Recorder
    width: int
    """Largest number of tasks that are trained in one pass."""

    @property
    def _cache(self) -> Cache:
        return self.recorder.cache

    def job(self, pending: Sequence[WorkItem], place: Place) -> Job:
        """Make one job for several work items, which must have the same quantization."""
        setup = self.recorder.setup
        tasks = [self._task(item) for item in pending]
        rehearsed = [self._rehearsal(task) for task in tasks]
        rows = list(dict.fromkeys(row for own in rehearsed for row in own))
        places = {row: place for place, row in enumerate(rows)}
        return Job(
            model=setup.model,
            machine=replace(setup.machine, threads=place.threads or setup.machine.threads),
            quantization=pending[0].quantization,
            engine=setup.engine,
            cache=str(self._cache.root.resolve()),
            examples=setup.suite.examples,
            decoding=setup.suite.decoding,
            tasks=tuple(
                replace(task, rehearsal=tuple(places[row] for row in own))
                for task, own in zip(tasks, rehearsed, strict=True)
            ),
            batch_size=_BATCH[setup.machine.kind],
            base=setup.saved_base(pending[0].quantization),
            rehearsal=tuple(row.example for row in rows),
            width=self.width,
        )

    def _rehearsal(self, task: Task) -> tuple[RehearsalRow, ...]:
        """The rehearsal rows of a task that trains."""
        return self.recorder.setup.rehearsal_rows(task.settings, task.seed) if task.settings and task.train else ()

    def _task(self, item: WorkItem) -> Task:
        train = item.settings is not None and self.recorder.training(item) is None
        if any(self._cache.training(each.training) is None for each in item.timeline) and not train:
            # The cache has the final adapter, but an adapter of an earlier epoch is missing. A second training on a
            # GPU differs in the last bits, so the final adapter is replaced, too.
            self._cache.forget(item.training)
            train, item.reused = True, False
        if item.adapter:
            import_adapter(self._cache, item.training, item.adapter)
        timeline = tuple(
            Snapshot(epoch, each.training, self._missing(each)) for epoch, each in enumerate(item.timeline, start=1)
        )
        return Task(
            item.trial,
            item.training,
            item.settings,
            item.seed,
            train,
            self._missing(item),
            attach=item.adapter.path if item.adapter else "",
            timeline=timeline,
            until=item.until,
            resume=item.resume if train and self._can_resume(item) else "",
        )

    def _can_resume(self, item: WorkItem) -> bool:
        """Whether the cache has the state of the training at the last look, and all adapters of earlier epochs."""
        if not item.resume or self._cache.training(state_id(item.resume)) is None:
            return False
        earlier = [each.training for each in item.timeline]
        before = earlier[: earlier.index(item.resume) + 1] if item.resume in earlier else []
        return all(self._cache.training(training) for training in (item.resume, *before))

    def _missing(self, item: WorkItem) -> tuple[Prompt, ...]:
        """The prompts that have no answer in the cache. A prompt that several cases share appears once."""
        known = item.known(self._cache.answers(item.training))
        return tuple({prompt.key: prompt for prompt in item.all_prompts if prompt.key not in known}.values())


def unfinished(job: Job, finished: Container[str]) -> Job:
    """Return what is left of a job that was interrupted: its tasks without those of the `finished` trials.

    Trainings that succeeded and prompts that were answered are in the cache, and are left out, too.
    """
    cache = Cache(Path(job.cache))
    return replace(job, tasks=tuple(_left_of(task, cache) for task in job.tasks if task.trial not in finished))


def _left_of(task: Task, cache: Cache) -> Task:
    found = cache.training(task.training) if task.train else None
    train = task.train and (found is None or found.status is not Status.SUCCEEDED)
    return replace(
        task,
        train=train,
        resume=task.resume if train else "",
        prompts=_unanswered(task.training, task.prompts, cache),
        timeline=tuple(replace(each, prompts=_unanswered(each.id, each.prompts, cache)) for each in task.timeline),
    )


def _unanswered(training: str, prompts: Sequence[Prompt], cache: Cache) -> tuple[Prompt, ...]:
    known = {answer.key for made in cache.answers(training) for answer in made.answers}
    return tuple(prompt for prompt in prompts if prompt.key not in known)


def import_adapter(cache: Cache, name: str, adapter: AdapterRef) -> None:
    """Copy an adapter trained elsewhere into the cache, so that later changes to its folder have no effect."""
    if cache.training(name) is None:
        parameters = adapter.trainable_parameters
        known = Training(name, Status.SUCCEEDED, "", (), None, trainable_parameters=parameters)
        cache.commit_training(known, partial(foreign_adapters.copy, adapter))
