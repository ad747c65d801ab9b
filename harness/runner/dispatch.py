"""Dispatches work items to workers, one worker after another, until every item has a record.

No other module assumes that one worker runs at a time. If a worker dies while it trains a single trial, only this trial
fails, and the next worker runs the remaining trials. `Dispatcher.run` says what happens if it was training several
trials in one pass.
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
"""Statuses of a worker that ended by itself, or exceeded a trial's time limit, before its job was done."""


@dataclass(frozen=True)
class Dispatcher:
    """Runs work items. Every item gets a record, unless the time budget has no time left for it."""

    recorder: Recorder
    executor: Executor
    timeout: float | None
    """Time limit of one trial in seconds."""
    budget: Budget | None

    def run(self, group: Sequence[WorkItem]) -> None:
        """Start workers until every item of `group` has a record or the time budget has no time left.

        If a worker that trains several trials in one pass dies, the next worker tries the same trials once more, and
        after each further death the next worker gets half as many, until the failing trial runs alone. If the worker
        ran out of memory or exceeded the time limit, the number is halved at once.

        All items must have the same quantization.
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
        """The items for the next worker. A time budget limits how many items the fused engine gets at once."""
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

        Returns CANCELLED if the worker was stopped because the time budget has no time left. If the worker died while
        it trained several trials in one pass, its unfinished trials get no record, and its status is returned.
        Otherwise returns SUCCEEDED.
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
        """Whether there is no time for the next trial, or the executor has stopped the worker because time is up."""
        timer.observe(event)
        if event.kind is EventKind.ENDED and event.status is Status.CANCELLED:
            timer.budget.spent = True
            return True
        if self._fused:
            return False  # all trials of the pass finish together, and their events are still to come
        following = next((item for item in pending if item.record is None), None)
        between_trials = event.kind in (EventKind.LOADED, EventKind.FINISHED)
        return between_trials and following is not None and not self._has_time(following)


@dataclass
class _Worker:
    """The state of one worker: whether its model is loaded, which trial is in flight, and how the worker ended."""

    recorder: Recorder
    pending: Sequence[WorkItem]
    log: str
    """Path of the worker's log, relative to the run directory."""
    co_scheduled: bool
    """Whether the worker trains several trials in one pass."""
    ended: Status = Status.SUCCEEDED
    loaded: bool = False
    in_flight: WorkItem = field(init=False)
    activity: str = "loading the base"

    def __post_init__(self) -> None:
        self.in_flight = self.pending[0]
        self._items = {item.trial: item for item in self.pending}

    def handle(self, event: Event) -> None:
        """Update the state from an event, and record each trial that ends with the event.

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
        """Record the trials that the worker completed. Its other trials get no record, so they run again."""
        for item in self.pending:
            if item.record is None:
                self.recorder.assemble(item, log=self.log)
        if any(item.record is None for item in self.pending):
            message = f"unfinished trials start again: {event.message}"
            self.recorder.listener.on_event(Event(EventKind.NOTICED, message=message))

    def _record_failure(self, event: Event) -> None:
        """Record the trial in flight as failed, or all trials of a worker that ended before its model was loaded."""
        if event.status is Status.SUCCEEDED and any(item.record for item in self.pending):
            return
        status = Status.FAILED if event.status in (None, Status.SUCCEEDED) else event.status
        message = event.message or "the worker ended without a message"
        if status is Status.OUT_OF_MEMORY:  # a killed worker cannot report its activity
            message = f"{message} while it was {self.activity}"
        self.recorder.fail([self.in_flight] if self.loaded else self.pending, status, message, self.log)
