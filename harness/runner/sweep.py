"""A sweep: run the trials of a plan that have no result yet, and store one record per trial.

All state is in files. A trial is finished when its record is in the run directory; what is in the cache (trained by an
earlier run, or by this one before it was killed) becomes a record without a worker; workers do the rest.

    runner/goals     what each trial must answer      runner/jobs      what a worker is given
    runner/recorder  records, from run and cache      runner/dispatch  workers, one after another
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.core.job import Event, EventKind
from harness.core.model import AdapterRef
from harness.core.run import TrialRecord
from harness.core.settings import Trial
from harness.core.suite import Split
from harness.runner.budget import Budget
from harness.runner.dispatch import Dispatcher
from harness.runner.executors import Executor
from harness.runner.goals import Goal, goals_of
from harness.runner.listeners import Listener
from harness.runner.recorder import Recorder
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.mirror import Mirror
from harness.storage.runs import RunStore


@dataclass(frozen=True)
class Sweep:
    """Gives every trial a record, even where workers die."""

    setup: Setup
    run: RunStore
    cache: Cache
    executor: Executor
    timeout: float | None = None
    """Seconds that one trial may take."""
    listener: Listener = field(default_factory=Listener)
    timeline: bool = False
    """Also evaluate the suite's `main` cases after every epoch."""
    adapters: tuple[AdapterRef, ...] = ()
    """Adapters trained elsewhere, to be scored on the `main` cases beside the trials."""
    predicted_oom: Mapping[str, str] = field(default_factory=dict)
    """Trial to the reason why it is predicted to run out of memory. It is skipped unless it already has a result."""
    budget: Budget | None = None
    mirror: Mirror | None = None
    """Where finished trainings and answers may be found, beside the cache."""

    def go(self, trials: Sequence[Trial], split: Split, purpose: str) -> tuple[TrialRecord, ...]:
        """One record per trial, the base's first. Trials that failed in an earlier session run again.

        Trials for which the budget has no time left have no record.

        Raises:
            EngineError: a worker refused the job for a mistake in the model or the texts.
        """
        recorder = Recorder(self.setup, self.run, self.cache, self.listener)
        goals = goals_of(self.setup, trials, split, adapters=self.adapters, timeline=self.timeline)
        self._pull(goals)
        for goal in goals:
            self._reuse(goal, recorder)
        pending = [goal for goal in goals if goal.record is None]
        self.listener.on_event(Event(EventKind.PLANNED, message=purpose, total=len(pending)))
        dispatcher = Dispatcher(recorder, self.executor, self.timeout, self.budget)
        for quantization in dict.fromkeys(goal.quantization for goal in pending):
            dispatcher.run([goal for goal in pending if goal.quantization is quantization])
        return tuple(goal.record for goal in goals if goal.record)

    def forget(self, trials: Iterable[Trial]) -> None:
        """Drop from the cache (and the mirror) what these trials and the base would reuse."""
        for trial in trials:
            self._forget(self.setup.training_id(trial.settings, trial.seed))
            self._forget(self.setup.base_id(trial.settings.quantization))
            for adapter in self.adapters:
                self._forget(self.setup.adapter_id(adapter, trial.settings.quantization))

    def _forget(self, training: str) -> None:
        self.cache.forget(training)
        if self.mirror:
            self.mirror.forget(training)

    def _pull(self, goals: Iterable[Goal]) -> None:
        if self.mirror:
            for goal in goals:
                self.mirror.pull(goal.trainings, trained=goal.settings is not None)

    def _reuse(self, goal: Goal, recorder: Recorder) -> None:
        """Use the goal's earlier result, or record that it is predicted to run out of memory."""
        recorder.reuse(goal)
        if goal.record is None and goal.trial in self.predicted_oom:
            recorder.predict(goal, self.predicted_oom[goal.trial])
        if goal.record and self.budget and self._same_device(goal.record):
            self.budget.learn(goal.trial, sum(cost.seconds.value for cost in goal.record.costs))

    def _same_device(self, record: TrialRecord) -> bool:
        return {cost.seconds.device for cost in record.costs} == {self.setup.machine.device}
