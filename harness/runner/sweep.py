"""A sweep: run the trials of a plan that have no result yet, and store one record per trial.

All state is in files, so a killed run can resume. A trial is finished when its record is in the run directory. If the
cache already holds the trial's adapter and answers, the record is made from them; otherwise a worker process trains and
answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.core.job import Event, EventKind
from harness.core.model import AdapterRef
from harness.core.run import TrialRecord
from harness.core.settings import Quantization, Trial
from harness.core.suite import Split
from harness.runner.budget import Budget
from harness.runner.composition import Composition
from harness.runner.dispatch import Dispatcher
from harness.runner.executors.protocol import Executor
from harness.runner.listeners.protocol import Listener
from harness.runner.recorder import Recorder
from harness.runner.reuse import reuse
from harness.runner.work_items import WorkItem, work_items
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.mirror import Mirror
from harness.storage.runs import RunStore


@dataclass(frozen=True)
class Sweep:
    """Runs trials. If a worker process dies, its unfinished trial is recorded as failed, and the others continue."""

    setup: Setup
    run: RunStore
    cache: Cache
    executor: Executor
    timeout: float | None = None
    """Time limit of one trial in seconds."""
    listener: Listener = field(default_factory=Listener)
    timeline: bool = False
    """Also evaluate the suite's `main` cases after every epoch."""
    adapters: tuple[AdapterRef, ...] = ()
    """Adapters trained elsewhere, which are also scored on the `main` cases."""
    adapter_base: Quantization = Quantization.NF4
    """Quantisation of the base to which these adapters are attached."""
    predicted_oom: Mapping[str, str] = field(default_factory=dict)
    """Trials predicted to run out of memory: id to a message. They are skipped, unless they have a result already."""
    budget: Budget | None = None
    mirror: Mirror | None = None
    """The folder of `--sync`, from which missing trainings and answers are copied to the cache."""
    before: Callable[[], None] = lambda: None
    """Called before any work is given to a worker; it raises a `HarnessError` if that work would be in vain."""
    composition: Composition = field(default_factory=Composition)
    """The rules by which trials are put into passes."""

    def run_trials(
        self, trials: Sequence[Trial], split: Split, purpose: str, *, planned: Sequence[Trial] | None = None
    ) -> tuple[TrialRecord, ...]:
        """Run the trials on one split of the cases. Returns their records, after those of the bases that they need.

        The base answers once in each quantisation of the trials.
        Trials that failed in an earlier session run again. Trials for which the budget has no time left get no record.
        `purpose` is the title of the progress display. `planned` are all trials of the plan in its order, of which
        passes are composed; by default they are `trials`.

        Raises:
            EngineError: a worker refused the job because of a mistake in the model or the texts.
        """
        items = self.items(trials, split)
        self.run_items(items, trials if planned is None else planned, purpose)
        return tuple(item.record for item in items if item.record)

    def items(self, trials: Sequence[Trial], split: Split) -> list[WorkItem]:
        """Return the work items of these trials, after those of the bases that they need."""
        return work_items(
            self.setup, trials, split, adapters=self.adapters, adapter_base=self.adapter_base, timeline=self.timeline
        )

    @property
    def recorder(self) -> Recorder:
        return Recorder(self.setup, self.run, self.cache, self.listener)

    def run_items(self, items: Sequence[WorkItem], planned: Sequence[Trial], purpose: str) -> None:
        """Run the work items that have no result yet. `run_trials` explains `planned` and `purpose`."""
        recorder = self.recorder
        self._pull(items)
        for item in items:
            self._use_earlier_result(item, recorder)
        pending = [item for item in items if item.record is None]
        self.listener.on_event(Event(EventKind.PLANNED, message=purpose, total=len(pending)))
        dispatcher = Dispatcher(recorder, self.executor, self.timeout, self.budget, self.composition)
        if passes := self._passes(pending, planned):
            self.before()
            dispatcher.run(passes)

    def _passes(self, pending: Sequence[WorkItem], planned: Sequence[Trial]) -> list[list[WorkItem]]:
        """Put work items that have no record into the passes of the plan, in the order in which these start.

        In each quantisation, the base answers first, together with adapters trained elsewhere. Of the passes of trials,
        the longest starts first, or with a time budget the one with the most informative trial.
        """
        bases = [item for item in pending if item.settings is None]
        found = [
            [item for item in bases if item.quantization is quantization]
            for quantization in dict.fromkeys(item.quantization for item in bases)
        ]
        trials = {item.trial: item for item in pending if item.settings}
        places = {trial: place for place, trial in enumerate(trials)}
        composed = [
            sorted((trial.id for trial in some if trial.id in trials), key=lambda trial: places[trial])
            for some in self.composition.passes(self.setup.engine, planned)
        ]
        waiting = [some for some in composed if some]
        if self.budget is None:
            waiting.sort(key=lambda some: (-self.composition.weight(some), places[some[0]]))
        else:
            waiting.sort(key=lambda some: places[some[0]])
        return [*found, *([trials[trial] for trial in some] for some in waiting)]

    def forget(self, trials: Iterable[Trial]) -> None:
        """Delete the results of these trials from the cache and from the folder of `--sync`.

        The answers of the base model and of adapters trained elsewhere are deleted, too, but not the base model's
        rehearsal rows.
        """
        for trial in trials:
            if self.setup.can_rehearse(trial.settings):
                self._forget(self.setup.training_id(trial.settings, trial.seed))
            self._forget(self.setup.base_id(trial.settings.quantization))
            for adapter in self.adapters:
                self._forget(self.setup.adapter_id(adapter, trial.settings.quantization))

    def forget_rehearsal(self, quantization: Quantization) -> None:
        """Delete the base model's answers to rehearsal prompts."""
        self._forget(self.setup.rehearsal_id(quantization))

    def _forget(self, training: str) -> None:
        self.cache.forget(training)
        if self.mirror:
            self.mirror.forget(training)

    def _pull(self, items: Iterable[WorkItem]) -> None:
        if self.mirror:
            for item in items:
                self.mirror.pull(item.trainings, trained=item.settings is not None)

    def _use_earlier_result(self, item: WorkItem, recorder: Recorder) -> None:
        """Use the result of an earlier session, or else record the trial as out of memory if this is predicted."""
        reuse(item, recorder)
        if item.record is None and item.trial in self.predicted_oom:
            recorder.predict(item, self.predicted_oom[item.trial])
        if item.record and self.budget and not item.looks and self._same_device(item.record):
            self.budget.learn(item.trial, sum(cost.seconds.value for cost in item.record.costs))

    def _same_device(self, record: TrialRecord) -> bool:
        return {cost.seconds.device for cost in record.costs} == {self.setup.machine.device}
