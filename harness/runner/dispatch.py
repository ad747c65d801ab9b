"""Dispatches work items to workers, one worker after another, until every item has a record.

Only this module assumes that one worker runs at a time. If a worker dies, only the trial in flight fails, and the next
worker runs the remaining trials. If the worker was training several trials in one pass, see `Dispatcher.run`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.engines import Engine
from harness.core.errors import EngineError
from harness.core.job import Event, EventKind
from harness.core.training_outcome import Status
from harness.runner.budget import Budget
from harness.runner.executors.protocol import Executor
from harness.runner.jobs import Jobs
from harness.runner.recorder import Recorder
from harness.runner.trial_timer import TrialTimer
from harness.runner.work_items import WorkItem

_ACTIVITIES = {EventKind.STARTED: "starting", EventKind.STEP: "training", EventKind.ANSWERING: "answering"}
_DEATHS = (Status.FAILED, Status.OUT_OF_MEMORY, Status.TIMED_OUT)
"""Statuses of a worker that ended before its job was done, unless it was cancelled."""


@dataclass(frozen=True)
class Dispatcher:
    """Runs work items that share a quantization. Every item gets a record, unless the budget has no time left."""

    recorder: Recorder
    executor: Executor
    timeout: float | None
    """Time limit of one trial in seconds."""
    budget: Budget | None

    def run(self, group: Sequence[WorkItem]) -> None:
        """Start workers until every item has a record or the budget has no time left.

        If a worker running several trials dies, retry the same set once, then bisect until the failing trial runs
        alone. If memory or time ran out, bisect without a retry.
        """
        limit, retry = len(group), True
        while pending := [item for item in group if item.record is None and self._has_time(item, loading=True)]:
            batch = self._batch(pending)[:limit]
            ended = self._run_worker(batch)
            if ended is Status.SUCCEEDED and all(item.record is None for item in batch):
                raise RuntimeError(f"a worker ended without reporting anything about {batch[0].trial}")
            if ended in (Status.OUT_OF_MEMORY, Status.TIMED_OUT) or (ended is Status.FAILED and not retry):
                limit = max(1, len(batch) // 2)
            retry = ended is not Status.FAILED

    def _batch(self, pending: list[WorkItem]) -> list[WorkItem]:
        """The items for the next worker; with a budget and the fused engine, only as many as can finish in time."""
        if self.budget is None or not self._fused:
            return pending
        return pending[: max(1, self.budget.fitting([item.trial for item in pending]))]

    @property
    def _fused(self) -> bool:
        return self.recorder.setup.engine is Engine.FUSED

    def _has_time(self, item: WorkItem, *, loading: bool = False) -> bool:
        if self.budget is None or self.budget.allows(item.trial, loading=loading):
            return True
        self.budget.spent = True
        return False

    def _run_worker(self, pending: Sequence[WorkItem]) -> Status:
        """Run one worker until it ends, and record the trials that it finished.

        Returns CANCELLED if the worker was stopped because the budget has no time for the next trial; the worker's
        status if it died while training several trials in one pass, whose unfinished trials get no record; else
        SUCCEEDED.
        """
        job, log = self.recorder.run.new_worker(Jobs(self.recorder).job(pending))
        name = log.relative_to(self.recorder.run.root).as_posix()
        worker = _Worker(self.recorder, pending, name, co_scheduled=self._fused and len(pending) > 1)
        timer = TrialTimer(self.budget) if self.budget else None
        with closing(self._events(job, log)) as events:
            for event in events:
                worker.handle(event)
                self.recorder.listener.on_event(event)
                if timer and self._out_of_time(timer, event, pending):
                    return Status.CANCELLED
        return worker.ended

    def _events(self, job: Path, log: Path) -> Generator[Event, None, None]:
        """The worker's events; closing this generator stops the worker."""
        until = self.budget.until if self.budget else None
        yield from self.executor.run(job, log, timeout=self.timeout, until=until)

    def _out_of_time(self, timer: TrialTimer, event: Event, pending: Sequence[WorkItem]) -> bool:
        """Whether there is no time for the next trial, or the worker was stopped because the time was up."""
        timer.observe(event)
        if event.kind is EventKind.ENDED and event.status is Status.CANCELLED:
            timer.budget.spent = True
            return True
        if self._fused:
            return False  # trials of one pass finish together, so their events follow
        following = next((item for item in pending if item.record is None), None)
        between_trials = event.kind in (EventKind.LOADED, EventKind.FINISHED)
        return between_trials and following is not None and not self._has_time(following)


@dataclass
class _Worker:
    """The state of one worker: whether its model is loaded, which trial is in flight, and how the worker ended."""

    recorder: Recorder
    pending: Sequence[WorkItem]
    log: str
    """Path of its log, relative to the run directory."""
    co_scheduled: bool
    """Whether it trains several trials in one pass."""
    ended: Status = Status.SUCCEEDED
    loaded: bool = False
    in_flight: WorkItem = field(init=False)
    activity: str = "loading the base"

    def __post_init__(self) -> None:
        self.in_flight = self.pending[0]
        self._items = {item.trial: item for item in self.pending}

    def handle(self, event: Event) -> None:
        """Update the state from an event, and record trials that the event ends.

        Raises:
            EngineError: the worker refused the job because of a mistake in the model or the texts.
        """
        self.loaded = self.loaded or event.kind is EventKind.LOADED
        self.in_flight = self._items.get(event.trial, self.in_flight)
        self.activity = _ACTIVITIES.get(event.kind, self.activity)
        if event.kind is EventKind.REFUSED:
            raise EngineError(event.message)
        if event.kind is EventKind.FINISHED:
            for item in [self._items[event.trial]] if event.trial else self.pending:
                self.recorder.finish(item, event, self.log)
        elif event.kind is EventKind.ENDED:
            self._end(event)

    def _end(self, event: Event) -> None:
        if self.co_scheduled and self.loaded and event.status in _DEATHS:
            self.ended = event.status
            self._leave_for_retry(event)
        elif event.status is not Status.CANCELLED:
            self._record_failure(event)

    def _leave_for_retry(self, event: Event) -> None:
        """Record the trials that the worker completed. The others get no record, so the dispatcher runs them again."""
        for item in self.pending:
            if item.record is None:
                self.recorder.assemble(item, log=self.log)
        if any(item.record is None for item in self.pending):
            message = f"unfinished trials start again: {event.message}"
            self.recorder.listener.on_event(Event(EventKind.NOTICED, message=message))

    def _record_failure(self, event: Event) -> None:
        """Record the trial in flight as failed, or all trials if the worker died before it had loaded the model."""
        if event.status is Status.SUCCEEDED and any(item.record for item in self.pending):
            return
        status = Status.FAILED if event.status in (None, Status.SUCCEEDED) else event.status
        message = event.message or "the worker ended without a message"
        if status is Status.OUT_OF_MEMORY:  # a killed worker cannot report its activity
            message = f"{message} while it was {self.activity}"
        self.recorder.fail([self.in_flight] if self.loaded else self.pending, status, message, self.log)
