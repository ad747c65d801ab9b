"""Hands pending goals to workers, one worker after another, until every goal has a record.

This is the only module that assumes one worker at a time. If a worker dies, only the trial in flight fails; the next
worker is given the rest. For trials that one worker trains together (co-scheduled), see `Dispatcher.run`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.engines import Engine
from harness.core.errors import EngineError
from harness.core.job import Event, EventKind
from harness.core.training import Status
from harness.runner.budget import Budget
from harness.runner.executors import Executor
from harness.runner.goals import Goal
from harness.runner.jobs import Jobs
from harness.runner.recorder import Recorder
from harness.runner.watch import Watch

_ACTIVITIES = {EventKind.STARTED: "starting", EventKind.STEP: "training", EventKind.ANSWERING: "answering"}
_DEATHS = (Status.FAILED, Status.OUT_OF_MEMORY, Status.TIMED_OUT)
"""How a worker ends that was not told to stop."""


@dataclass(frozen=True)
class Dispatcher:
    """Runs goals of one quantization to their records."""

    recorder: Recorder
    executor: Executor
    timeout: float | None
    """Seconds that one trial may take."""
    budget: Budget | None

    def run(self, group: Sequence[Goal]) -> None:
        """Start workers until every goal has a record or the budget has no time left.

        If a worker running several trials dies, retry the same set once, then bisect until the failing trial runs
        alone. Where memory or time ran out, bisect at once.
        """
        most, retry = len(group), True
        while pending := [goal for goal in group if goal.record is None and self._has_time(goal, loading=True)]:
            together = self._together(pending)[:most]
            ended = self._run_worker(together)
            if ended is Status.SUCCEEDED and all(goal.record is None for goal in together):
                raise RuntimeError(f"a worker ended without reporting anything about {together[0].trial}")
            if ended in (Status.OUT_OF_MEMORY, Status.TIMED_OUT) or (ended is Status.FAILED and not retry):
                most = max(1, len(together) // 2)
            retry = ended is not Status.FAILED

    def _together(self, pending: list[Goal]) -> list[Goal]:
        """The goals of one worker. A pass that is stopped is lost: with a budget, only as many as it has time for."""
        if self.budget is None or not self._fused:
            return pending
        return pending[: max(1, self.budget.fitting([goal.trial for goal in pending]))]

    @property
    def _fused(self) -> bool:
        return self.recorder.setup.engine is Engine.FUSED

    def _has_time(self, goal: Goal, *, loading: bool = False) -> bool:
        if self.budget is None or self.budget.allows(goal.trial, loading=loading):
            return True
        self.budget.spent = True
        return False

    def _run_worker(self, pending: Sequence[Goal]) -> Status:
        """Run one worker from start to end; afterwards every trial that it ended has a record.

        Returns CANCELLED where it was stopped because there is no time for the next trial, and a worker's own end where
        it died with several trials in flight, none of which has a record then.
        """
        job, log = self.recorder.run.new_worker(Jobs(self.recorder).job(pending))
        name = log.relative_to(self.recorder.run.root).as_posix()
        worker = _Worker(self.recorder, pending, name, co_scheduled=self._fused and len(pending) > 1)
        watch = Watch(self.budget) if self.budget else None
        with closing(self._events(job, log)) as events:
            for event in events:
                worker.handle(event)
                self.recorder.listener.on_event(event)
                if watch and self._is_over(watch, event, pending):
                    return Status.CANCELLED
        return worker.ended

    def _events(self, job: Path, log: Path) -> Generator[Event, None, None]:
        """The worker's events; closing this generator stops the worker."""
        until = self.budget.until if self.budget else None
        yield from self.executor.run(job, log, timeout=self.timeout, until=until)

    def _is_over(self, watch: Watch, event: Event, pending: Sequence[Goal]) -> bool:
        """Whether the next trial would not be finished in time."""
        watch.see(event)
        if event.kind is EventKind.ENDED and event.status is Status.CANCELLED:
            watch.budget.spent = True
            return True
        if self._fused:
            return False  # co-scheduled trials finish together: their events are about to come
        following = next((goal for goal in pending if goal.record is None), None)
        between_trials = event.kind in (EventKind.LOADED, EventKind.FINISHED)
        return between_trials and following is not None and not self._has_time(following)


@dataclass
class _Worker:
    """What is known of one worker: whether its model is loaded, which trial is in flight, how it ended."""

    recorder: Recorder
    pending: Sequence[Goal]
    log: str
    """Path in the run directory."""
    co_scheduled: bool
    """It runs several trials together."""
    ended: Status = Status.SUCCEEDED
    loaded: bool = False
    in_flight: Goal = field(init=False)
    activity: str = "loading the base"

    def __post_init__(self) -> None:
        self.in_flight = self.pending[0]
        self._goals = {goal.trial: goal for goal in self.pending}

    def handle(self, event: Event) -> None:
        """Follow the worker's progress and record what it ends.

        Raises:
            EngineError: the worker refused the job for a mistake in the model or the texts.
        """
        self.loaded = self.loaded or event.kind is EventKind.LOADED
        self.in_flight = self._goals.get(event.trial, self.in_flight)
        self.activity = _ACTIVITIES.get(event.kind, self.activity)
        if event.kind is EventKind.REFUSED:
            raise EngineError(event.message)
        if event.kind is EventKind.FINISHED:
            for goal in [self._goals[event.trial]] if event.trial else self.pending:
                self.recorder.finish(goal, event, self.log)
        elif event.kind is EventKind.ENDED:
            self._end(event)

    def _end(self, event: Event) -> None:
        if self.co_scheduled and self.loaded and event.status in _DEATHS:
            self.ended = event.status
            self._leave_for_retry(event)
        elif event.status is not Status.CANCELLED:
            self._record_failure(event)

    def _leave_for_retry(self, event: Event) -> None:
        """Record what the worker committed; the other trials get no record, so they run again."""
        for goal in self.pending:
            if goal.record is None:
                self.recorder.assemble(goal, log=self.log)
        if any(goal.record is None for goal in self.pending):
            message = f"unfinished trials start again: {event.message}"
            self.recorder.listener.on_event(Event(EventKind.NOTICED, message=message))

    def _record_failure(self, event: Event) -> None:
        """The trial in flight fails with its worker; before the model was loaded, all trials fail."""
        if event.status is Status.SUCCEEDED and any(goal.record for goal in self.pending):
            return
        status = Status.FAILED if event.status in (None, Status.SUCCEEDED) else event.status
        message = event.message or "the worker ended without a message"
        if status is Status.OUT_OF_MEMORY:  # the killed worker could not report where it was
            message = f"{message} while it was {self.activity}"
        self.recorder.fail([self.in_flight] if self.loaded else self.pending, status, message, self.log)
