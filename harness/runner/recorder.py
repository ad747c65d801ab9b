"""Makes trials' records from what the run directory and the cache hold, and stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.core.answers import Answer
from harness.core.job import Event
from harness.core.measurement import Basis, PhaseCost, Shortage
from harness.core.run import EpochAnswers, TrialRecord
from harness.core.training import Status, Training
from harness.runner.goals import Goal
from harness.runner.listeners import Listener
from harness.runner.phase_costs import answering_costs
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.runs import RunStore


@dataclass(frozen=True)
class _Found:
    """The contents of a record, besides what the goal itself determines."""

    status: Status
    message: str = ""
    training: Training | None = None
    costs: tuple[PhaseCost, ...] = ()
    answers: Mapping[str, tuple[Answer, ...]] = field(default_factory=dict)
    timeline: tuple[EpochAnswers, ...] = ()
    log: str = ""
    shortage: Shortage | None = None
    basis: Basis | None = None
    """None: this machine's."""


@dataclass(frozen=True)
class Recorder:
    """Gives goals their records, writes each to the run directory and passes it to the listeners."""

    setup: Setup
    run: RunStore
    cache: Cache
    listener: Listener

    def reuse(self, goal: Goal) -> None:
        """Use the record in the run directory, or make one from the cache."""
        found = self.run.record(goal.split, goal.trial)
        if found and found.status.is_result and found.basis is not Basis.PREDICTED and goal.accepts(found):
            goal.record = found
            self.listener.on_record(found, goal.trainings)
        else:
            goal.reused = bool(self.training(goal) or goal.known(self.cache.answers(goal.training)))
            self.assemble(goal)

    def assemble(self, goal: Goal, *, log: str = "") -> bool:
        """Make the goal's record from the cache, if everything is there."""
        training = self.training(goal)
        if goal.settings and training is None:
            return False
        if training and training.status is not Status.SUCCEEDED:
            found = _Found(training.status, training.message, training, log=log, shortage=training.shortage)
        else:
            succeeded = self._succeeded(goal, training, log)
            if succeeded is None:
                return False
            found = succeeded
        self._write(goal, found)
        return True

    def _succeeded(self, goal: Goal, training: Training | None, log: str) -> _Found | None:
        """All answers from the cache; None where one is missing."""
        passes = self.cache.answers(goal.training)
        answers = goal.answers(passes)
        timeline = tuple(
            EpochAnswers(epoch, each.answers(self.cache.answers(each.training)))
            for epoch, each in enumerate(goal.timeline, start=1)
        )
        if any(len(own) < len(goal.prompts) for own in (answers, *(each.answers for each in timeline))):
            return None
        costs = (*([training.cost] if training and training.cost else []), *answering_costs(goal, passes))
        return _Found(Status.SUCCEEDED, "", training, costs, answers, timeline, log)

    def predict(self, goal: Goal, message: str) -> None:
        """Record that the trial is predicted to run out of memory and was skipped."""
        self._write(goal, _Found(Status.OUT_OF_MEMORY, message, basis=Basis.PREDICTED))

    def finish(self, goal: Goal, event: Event, log: str) -> None:
        """Record a trial that a worker reported as finished."""
        status = event.status or Status.FAILED
        if event.trial and status.is_result and self.assemble(goal, log=log):
            return
        # A worker commits a result to the cache before it reports it; where the cache has none, the trial failed.
        message = event.message or "the worker reported a result that is not in the cache"
        status = Status.FAILED if status is Status.SUCCEEDED else status
        self._fail(goal, status, message, log, event.shortage)

    def fail(self, goals: Sequence[Goal], status: Status, message: str, log: str) -> None:
        """Record the failure of every goal that has no record and cannot be assembled from the cache."""
        for goal in goals:
            if goal.record is None and not self.assemble(goal, log=log):
                self._fail(goal, status, message, log, None)

    def _fail(self, goal: Goal, status: Status, message: str, log: str, shortage: Shortage | None) -> None:
        training = self.training(goal)
        self._write(goal, _Found(status, message, training, log=log, shortage=shortage))

    def training(self, goal: Goal) -> Training | None:
        """The goal's training in the cache; a shortage of memory counts only for a machine with the same memory."""
        found = self.cache.training(goal.training) if goal.settings else None
        short = found.shortage if found else None
        return None if short and not self.setup.same_memory(short) else found

    def _write(self, goal: Goal, found: _Found) -> None:
        costs = found.costs or ((found.training.cost,) if found.training and found.training.cost else ())
        goal.record = TrialRecord(
            trial=goal.trial,
            variant=goal.variant,
            seed=goal.seed,
            settings=goal.settings,
            split=goal.split,
            status=found.status,
            message=found.message,
            training=found.training,
            costs=costs,
            answers=dict(found.answers),
            log=found.log,
            reused=goal.reused,
            timeline=found.timeline,
            shortage=found.shortage,
            basis=found.basis or self.setup.machine.basis,
        )
        self.run.write_trial(goal.record)
        self.listener.on_record(goal.record, goal.trainings)
