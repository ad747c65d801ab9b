"""Makes the record of a trial from the cache or from a worker's event, and stores it in the run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.core.answers import Answer
from harness.core.job import Event
from harness.core.measurement import Basis, PhaseCost, Shortage
from harness.core.run import EpochAnswers, TrialRecord
from harness.core.training_outcome import Status, Training
from harness.runner.listeners.protocol import Listener
from harness.runner.phase_costs import answering_costs
from harness.runner.work_items import WorkItem
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.runs import RunStore


@dataclass(frozen=True)
class _Outcome:
    """The parts of a record that depend on how the trial ended."""

    status: Status
    message: str = ""
    training: Training | None = None
    costs: tuple[PhaseCost, ...] = ()
    answers: Mapping[str, tuple[Answer, ...]] = field(default_factory=dict)
    timeline: tuple[EpochAnswers, ...] = ()
    log: str = ""
    shortage: Shortage | None = None
    basis: Basis | None = None
    """Basis of the figures; None: the basis of figures measured on this machine."""


@dataclass(frozen=True)
class Recorder:
    """Sets the record of work items, writes it to the run directory and passes it to the listener."""

    setup: Setup
    run: RunStore
    cache: Cache
    listener: Listener

    def assemble(self, item: WorkItem, *, log: str = "") -> bool:
        """Make the record from the cache. If the training or an answer is missing there, return False instead."""
        training = self.training(item)
        if item.settings and training is None:
            return False
        if training and training.status is not Status.SUCCEEDED:
            found = _Outcome(training.status, training.message, training, log=log, shortage=training.shortage)
        else:
            succeeded = self._succeeded(item, training, log)
            if succeeded is None:
                return False
            found = succeeded
        self._write(item, found)
        return True

    def _succeeded(self, item: WorkItem, training: Training | None, log: str) -> _Outcome | None:
        """The outcome of a trial that succeeded; None if one of its answers is missing in the cache."""
        passes = self.cache.answers(item.training)
        answers = item.answers(passes)
        timeline = tuple(
            EpochAnswers(epoch, each.answers(self.cache.answers(each.training)))
            for epoch, each in enumerate(item.timeline, start=1)
        )
        if any(len(own) < len(item.prompts) for own in (answers, *(each.answers for each in timeline))):
            return None
        costs = (*([training.cost] if training and training.cost else []), *answering_costs(item, passes))
        return _Outcome(Status.SUCCEEDED, "", training, costs, answers, timeline, log)

    def predict(self, item: WorkItem, message: str) -> None:
        """Record that the trial was skipped because it is predicted to run out of memory."""
        self._write(item, _Outcome(Status.OUT_OF_MEMORY, message, basis=Basis.PREDICTED))

    def stop(self, item: WorkItem, message: str) -> TrialRecord:
        """Return a record of a trial that is not trained, because its variant left a race under other seeds."""
        item.record, item.reused = None, False
        record = self._record(item, _Outcome(Status.STOPPED, message))
        if self.run.record(item.split, item.trial) != record:
            self.store(record, ())
        return record

    def finish(self, item: WorkItem, event: Event, log: str) -> None:
        """Record a trial that a worker reported as finished."""
        status = event.status or Status.FAILED
        if event.trial and status.is_result and self.assemble(item, log=log):
            return
        # A worker writes a result to the cache before it reports success. If the cache has no result, the trial failed.
        message = event.message or "the worker reported a result that is not in the cache"
        status = Status.FAILED if status is Status.SUCCEEDED else status
        self._fail(item, status, message, log, event.shortage)

    def fail(self, items: Sequence[WorkItem], status: Status, message: str, log: str) -> None:
        """Record every item without a record: as finished if all of its results are in the cache, else as failed."""
        for item in items:
            if item.record is None and not self.assemble(item, log=log):
                self._fail(item, status, message, log, None)

    def _fail(self, item: WorkItem, status: Status, message: str, log: str, shortage: Shortage | None) -> None:
        training = self.training(item)
        self._write(item, _Outcome(status, message, training, log=log, shortage=shortage))

    def training(self, item: WorkItem) -> Training | None:
        """The item's training in the cache; None if there is none.

        A training that ran out of memory on a machine with another amount of memory is ignored.
        """
        found = self.cache.training(item.training) if item.settings else None
        short = found.shortage if found else None
        return None if short and not self.setup.same_memory(short) else found

    def _write(self, item: WorkItem, found: _Outcome) -> None:
        item.record = self._record(item, found)
        if item.until:  # the run directory has records of trials only, and this one is not over
            self.listener.on_look(item.record, item.trainings)
        else:
            self.store(item.record, item.trainings)

    def _record(self, item: WorkItem, found: _Outcome) -> TrialRecord:
        costs = found.costs or ((found.training.cost,) if found.training and found.training.cost else ())
        return TrialRecord(
            trial=item.trial,
            variant=item.variant,
            seed=item.seed,
            settings=item.settings,
            split=item.split,
            status=found.status,
            message=found.message,
            training=found.training,
            costs=costs,
            answers=dict(found.answers),
            log=found.log,
            reused=item.reused,
            timeline=found.timeline,
            shortage=found.shortage,
            basis=found.basis or self.setup.machine.basis,
            looks=item.looks,
            quantization=item.quantization,
        )

    def store(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        """Write the record of a trial that is over. `trainings` are the cache keys of its adapters."""
        self.run.write_trial(record)
        self.listener.on_record(record, trainings)
