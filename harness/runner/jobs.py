"""Jobs: what a worker is given to do, for goals that have no record yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from harness.core.job import Job, Prompt, Snapshot, Task
from harness.core.model import AdapterRef
from harness.core.training import Status, Training
from harness.core.units import DeviceKind
from harness.models import foreign_adapters
from harness.runner.goals import Goal
from harness.runner.recorder import Recorder
from harness.storage.cache import Cache

_BATCH = {DeviceKind.CPU: 64, DeviceKind.CUDA: 16}
"""Prompts answered in one batch. On a T4, 16 leave room for the keys and values of a 7B model."""


@dataclass(frozen=True)
class Jobs:
    """Makes jobs; trainings and answers that the cache holds are left out."""

    recorder: Recorder

    @property
    def _cache(self) -> Cache:
        return self.recorder.cache

    def job(self, pending: Sequence[Goal]) -> Job:
        """One job for all these goals, which share a quantization."""
        setup = self.recorder.setup
        return Job(
            model=setup.model,
            machine=setup.machine,
            quantization=pending[0].quantization,
            engine=setup.engine,
            cache=str(self._cache.root.resolve()),
            examples=setup.suite.examples,
            decoding=setup.suite.decoding,
            tasks=tuple(self._task(goal) for goal in pending),
            batch_size=_BATCH[setup.machine.kind],
            base=setup.saved_base(pending[0].quantization),
        )

    def _task(self, goal: Goal) -> Task:
        train = goal.settings is not None and self.recorder.training(goal) is None
        if any(self._cache.training(each.training) is None for each in goal.timeline) and not train:
            # The epochs' adapters are not in the cache. A GPU does not repeat a training bit for bit, so the final
            # adapter is trained again together with them.
            self._cache.forget(goal.training)
            train, goal.reused = True, False
        if goal.adapter:
            import_adapter(self._cache, goal.training, goal.adapter)
        timeline = tuple(
            Snapshot(epoch, each.training, self._missing(each)) for epoch, each in enumerate(goal.timeline, start=1)
        )
        return Task(
            goal.trial,
            goal.training,
            goal.settings,
            goal.seed,
            train,
            self._missing(goal),
            attach=goal.adapter.path if goal.adapter else "",
            timeline=timeline,
        )

    def _missing(self, goal: Goal) -> tuple[Prompt, ...]:
        """The prompts without an answer in the cache; cases with the same prompt are asked once."""
        known = goal.known(self._cache.answers(goal.training))
        return tuple({prompt.key: prompt for prompt in goal.asked if prompt.key not in known}.values())


def import_adapter(cache: Cache, name: str, adapter: AdapterRef) -> None:
    """Copy an adapter into the cache, where it cannot change, as if it had been trained here."""
    if cache.training(name) is None:
        parameters = adapter.trainable_parameters
        known = Training(name, Status.SUCCEEDED, "", (), None, trainable_parameters=parameters)
        cache.commit_training(known, partial(foreign_adapters.copy, adapter))
