"""Dispatches passes to the places of an executor until every work item has a record.

Each place, such as a GPU, has a thread that follows one worker at a time and hands its events over, one by one.
Everything else happens in the thread that called `Dispatcher.run`: it alone makes jobs, writes records, and knows which
passes wait.

If a worker dies while it trains a single trial, only this trial fails. `_Session._put_back` says what happens to a pass
of several trials.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from harness.core.engines import Engine
from harness.core.errors import EngineError
from harness.core.job import Event, EventKind
from harness.core.settings import Quantization
from harness.core.training_outcome import Status
from harness.runner.budget import Budget
from harness.runner.composition import Composition
from harness.runner.executors.protocol import Executor, Place, located
from harness.runner.jobs import Jobs
from harness.runner.recorder import Recorder
from harness.runner.trial_timer import TrialTimer
from harness.runner.work_items import WorkItem

_ACTIVITIES = {EventKind.STARTED: "starting", EventKind.STEP: "training", EventKind.ANSWERING: "answering"}
_DEATHS = (Status.FAILED, Status.OUT_OF_MEMORY, Status.TIMED_OUT)
"""Statuses of a worker that ended by itself, or exceeded a trial's time limit, before its job was done."""
_LOST = 3
"""A pass whose worker's machine disappeared this many times is treated as if the worker had died."""


@dataclass(frozen=True)
class Dispatcher:
    """Runs passes. Every item gets a record, unless the time budget has no time left for it."""

    recorder: Recorder
    executor: Executor
    timeout: float | None
    """Time limit of one trial in seconds."""
    budget: Budget | None
    composition: Composition = field(default_factory=Composition)

    def run(self, passes: Sequence[Sequence[WorkItem]]) -> None:
        """Start workers until every item has a record or the time budget has no time left.

        The items of a pass have the same quantization. Passes start in the given order, except that a place whose
        worker has loaded a base model goes on with passes of that model.

        Raises:
            EngineError: a worker refused the job because of a mistake in the model or the texts.
        """
        session = _Session(self, [_Waiting(tuple(items)) for items in passes])
        try:
            session.run()
        finally:
            session.close()


@dataclass(frozen=True)
class _Waiting:
    """Work items for one worker. `died` and `lost` say how often a worker, or its machine, ended too early."""

    items: tuple[WorkItem, ...]
    died: int = 0
    lost: int = 0

    @property
    def quantization(self) -> Quantization:
        return self.items[0].quantization


class _Session:
    """One call of `Dispatcher.run`."""

    def __init__(self, dispatcher: Dispatcher, passes: Sequence[_Waiting]) -> None:
        self._dispatcher, self._recorder, self._budget = dispatcher, dispatcher.recorder, dispatcher.budget
        self._jobs = Jobs(self._recorder, dispatcher.composition.width)
        self._waiting: dict[Quantization, deque[_Waiting]] = {}
        for each in passes:
            self._waiting.setdefault(each.quantization, deque()).append(each)
        self._reports: queue.Queue[_Report] = queue.Queue()
        self._lanes = [_Lane(dispatcher.executor, place, self._reports) for place in dispatcher.executor.places]
        self._number = self._recorder.run.last_worker()
        self._loaded: set[Quantization] = set()
        """The base models that a worker has loaded in this session."""

    def run(self) -> None:
        """Give passes to free places and handle what comes back, until no place is busy and no pass can start."""
        self._fill()
        while any(lane.worker for lane in self._lanes):
            report = self._reports.get()
            self._handle(report)
            report.lane.proceed()

    def close(self) -> None:
        """Stop all workers, and wait until they have ended."""
        for lane in self._lanes:
            lane.stop()
        for lane in self._lanes:
            lane.join()

    # --- starting workers -----------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start a worker in every free place for which there is a pass."""
        for lane in self._lanes:
            if lane.usable and lane.worker is None and (chosen := self._next(lane)):
                self._start(lane, chosen)

    def _next(self, lane: _Lane) -> _Waiting | None:
        """Take the next pass for a place, or as much of it as the time budget has time for."""
        for quantization in sorted(self._waiting, key=lambda each: each is not lane.holds):
            line = self._waiting[quantization]
            for _ in range(len(line)):
                found = line.popleft()
                some = self._in_time(found.items, loading=quantization is not lane.holds)
                left = tuple(item for item in found.items if item not in some) if len(some) < len(found.items) else ()
                if left:
                    (line.appendleft if some else line.append)(replace(found, items=left))
                if some:
                    return replace(found, items=some)
        return None

    def _in_time(self, items: tuple[WorkItem, ...], *, loading: bool) -> tuple[WorkItem, ...]:
        """The items for which the time budget has time, if one worker starts with them now."""
        if self._budget is None:
            return items
        allowed = tuple(item for item in items if self._has_time(item, loading=loading))
        if not self._fused or not allowed:
            return allowed
        return allowed[: max(1, self._budget.fitting([item.trial for item in allowed]))]

    @property
    def _fused(self) -> bool:
        return self._recorder.setup.engine is Engine.FUSED

    def _has_time(self, item: WorkItem, *, loading: bool = False) -> bool:
        if self._budget is None or self._budget.allows(item.trial, loading=loading):
            return True
        self._budget.spent = True
        return False

    def _start(self, lane: _Lane, chosen: _Waiting) -> None:
        self._number += 1
        made = self._jobs.job(chosen.items, lane.place)
        job, log = self._recorder.run.new_worker(made, self._number)
        name = log.relative_to(self._recorder.run.root).as_posix()
        together = self._fused and len(chosen.items) > 1
        timer = TrialTimer(self._budget) if self._budget else None
        worker = _Worker(self._recorder, chosen, name, lane.place, together, timer)
        lane.start(worker, _Order(job, log, self._dispatcher.timeout, self._budget.until if self._budget else None))

    # --- events -------------------------------------------------------------------------------------------------------

    def _handle(self, report: _Report) -> None:
        """Handle an event of a worker, the end of a worker, or an error of its executor.

        Raises:
            EngineError: the worker refused the job.
        """
        lane, worker = report.lane, report.lane.worker
        assert worker is not None
        if isinstance(report.what, BaseException):
            lane.worker = None
            raise report.what
        if report.what is None:
            lane.worker, kept = None, worker.ended is Status.SUCCEEDED and self._dispatcher.executor.keeps_workers
            lane.holds = worker.waiting.quantization if kept else None
            self._put_back(lane, worker)
            self._fill()
            return
        event = report.what
        worker.handle(event)
        if event.kind is EventKind.LOADED:
            self._loaded.add(worker.waiting.quantization)
        self._recorder.listener.on_event(replace(event, place=lane.place.name))
        if worker.timer and self._out_of_time(worker, worker.timer, event):
            worker.ended = Status.CANCELLED
            lane.cancel()

    def _out_of_time(self, worker: _Worker, timer: TrialTimer, event: Event) -> bool:
        """Whether there is no time for the next trial, or the executor has stopped the worker because time is up."""
        timer.observe(event)
        if event.kind is EventKind.ENDED and event.status is Status.CANCELLED:
            timer.budget.spent = True
            return True
        if self._fused:
            return False  # all trials of the pass finish together, and their events are still to come
        following = next((item for item in worker.items if item.record is None), None)
        between_trials = event.kind in (EventKind.LOADED, EventKind.FINISHED)
        return between_trials and following is not None and not self._has_time(following)

    # --- passes that are not finished -----------------------------------------------------------------------------

    def _put_back(self, lane: _Lane, worker: _Worker) -> None:
        """Let the items of a worker that have no record wait again.

        If a worker that trains several trials in one pass dies, the next worker tries the same trials once more, and
        after each further death the next worker gets half as many, until the failing trial runs alone. If the worker
        ran out of memory or exceeded the time limit, the number is halved at once.
        """
        if worker.unloadable:
            self._handle_unloadable(lane, worker, worker.unloadable)
            return
        waiting, left = worker.waiting, [item for item in worker.items if item.record is None]
        if worker.lost:
            self._wait_again(waiting, [left], lost=waiting.lost + 1)
        elif left and worker.ended is Status.SUCCEEDED and len(left) == len(worker.items):
            raise RuntimeError(f"a worker ended without reporting anything about {left[0].trial}")
        elif worker.ended in (Status.OUT_OF_MEMORY, Status.TIMED_OUT):
            self._wait_again(waiting, _halves(worker.items, left), died=0)
        elif worker.ended is Status.FAILED:
            self._wait_again(waiting, _halves(worker.items, left) if waiting.died else [left], died=1)
        else:
            self._wait_again(waiting, [left])

    def _wait_again(self, waiting: _Waiting, groups: Sequence[Sequence[WorkItem]], **changes: int) -> None:
        """Put groups of a pass's items back, to be the next that start."""
        for group in reversed(groups):
            if group:
                back = replace(waiting, items=tuple(group), **changes)
                self._waiting.setdefault(back.quantization, deque()).appendleft(back)

    def _handle_unloadable(self, lane: _Lane, worker: _Worker, event: Event) -> None:
        """Handle a worker that could not load the base model.

        If another place has loaded it, or is still loading it, this place gets no further passes. Else all passes of
        this base model fail, because no further worker could load it.
        """
        quantization = worker.waiting.quantization
        others = [each for each in self._lanes if each.usable and each is not lane]
        loading = any(each.worker and each.worker.waiting.quantization is quantization for each in others)
        if others and (loading or quantization in self._loaded):
            lane.usable = False
            message = f"{lane.place.name} is not used any more, because the base could not be loaded: {event.message}"
            self._recorder.listener.on_event(Event(EventKind.NOTICED, message=message))
            self._wait_again(worker.waiting, [[item for item in worker.items if item.record is None]])
            return
        passes = self._waiting.pop(quantization, deque())
        for item in (*worker.items, *(item for each in passes for item in each.items)):
            if item.record is None:
                self._recorder.finish(item, replace(event, trial=""), worker.log)


def _halves(items: Sequence[WorkItem], left: Sequence[WorkItem]) -> list[Sequence[WorkItem]]:
    """Divide what is left of a pass into groups of at most half of the pass's size."""
    size = max(1, len(items) // 2)
    return [left[start : start + size] for start in range(0, len(left), size)]


# --- places -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Order:
    """A job for a place, and its limits: see `Executor.run`."""

    job: Path
    log: Path
    timeout: float | None
    until: float | None


@dataclass(frozen=True)
class _Report:
    """What a place's thread hands over: an event, an error of the executor, or None when a worker has ended."""

    lane: _Lane
    what: Event | BaseException | None


class _Lane:
    """A place and its thread, which follows one worker after another.

    After each report, the thread waits for `proceed`. So events are handled one by one, and while an event is handled,
    no executor runs ahead of it in the same place.
    """

    def __init__(self, executor: Executor, place: Place, reports: queue.Queue[_Report]) -> None:
        self.place, self.worker, self.usable = place, cast("_Worker | None", None), True
        self.holds: Quantization | None = None
        """The quantisation of the base model that a waiting worker has loaded, if there is one."""
        self._executor, self._reports = executor, reports
        self._orders: queue.Queue[_Order | None] = queue.Queue()
        self._handled, self._stop, self._cancelled = threading.Semaphore(0), threading.Event(), False
        self._thread = threading.Thread(target=self._follow, name=f"worker {place.name}", daemon=True)

    def start(self, worker: _Worker, order: _Order) -> None:
        """Start a worker."""
        self.worker, self._cancelled = worker, False
        if not self._thread.ident:
            self._thread.start()
        self._orders.put(order)

    def proceed(self) -> None:
        """Let the thread go on after a report was handled."""
        self._handled.release()

    def cancel(self) -> None:
        """Stop the worker whose event is being handled. It ends without a further event."""
        self._cancelled = True

    def stop(self) -> None:
        """Stop the worker, if there is one, and let the thread end."""
        self._cancelled = True
        self._stop.set()
        self._orders.put(None)
        self._handled.release()

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread.ident:
            self._thread.join()

    def _follow(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                self._run(order)
                self._hand_over(None)
            except BaseException as error:  # noqa: BLE001 - the calling thread raises it
                self._hand_over(error)

    def _run(self, order: _Order) -> None:
        limits = {"timeout": order.timeout, "until": order.until}
        events = self._executor.run(order.job, order.log, place=self.place, stop=self._stop, **limits)
        with closing(events) as following:
            for event in following:
                self._hand_over(event)
                if self._cancelled:
                    return

    def _hand_over(self, what: Event | BaseException | None) -> None:
        if not self._stop.is_set():  # else nobody handles reports any more
            self._reports.put(_Report(self, what))
            self._handled.acquire()


@dataclass
class _Worker:
    """The state of one worker: whether its model is loaded, which trial is in flight, and how the worker ended."""

    recorder: Recorder
    waiting: _Waiting
    log: str
    """Path of the worker's log, relative to the run directory."""
    place: Place
    co_scheduled: bool
    """Whether the worker trains several trials in one pass."""
    timer: TrialTimer | None
    ended: Status = Status.SUCCEEDED
    """How the worker ended, as far as the other trials of its pass are concerned."""
    lost: bool = False
    """Whether the worker's machine disappeared."""
    unloadable: Event | None = None
    """The event that says how loading the base model failed, if it did."""
    loaded: bool = False
    in_flight: WorkItem = field(init=False)
    activity: str = "loading the base"

    def __post_init__(self) -> None:
        self.in_flight = self.items[0]
        self._items = {item.trial: item for item in self.items}

    @property
    def items(self) -> tuple[WorkItem, ...]:
        return self.waiting.items

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
            event = located(event, self.place.name)
        if event.kind is EventKind.FINISHED and event.trial:
            self.recorder.finish(self._items[event.trial], event, self.log)
        elif event.kind is EventKind.FINISHED:
            self.unloadable = event
        elif event.kind is EventKind.ENDED and not self.unloadable:
            self._end(event)

    def _end(self, event: Event) -> None:
        if event.status is Status.CANCELLED:
            return
        if event.lost and self.waiting.lost + 1 < _LOST:
            self.lost = True
            self._leave_for_retry(event)
        elif not self.loaded and not any(item.record for item in self.items):
            self._assemble()
            self.unloadable = replace(event, status=_failure(event), message=self._message(event))
        elif self.co_scheduled and event.status in _DEATHS:
            self.ended = event.status
            self._leave_for_retry(event)
        else:
            self._record_failure(event)

    def _leave_for_retry(self, event: Event) -> None:
        """Record the trials that the worker completed. Its other trials get no record, so they run again."""
        self._assemble()
        if any(item.record is None for item in self.items):
            message = f"unfinished trials start again: {self._message(event)}"
            self.recorder.listener.on_event(Event(EventKind.NOTICED, message=message))

    def _assemble(self) -> None:
        for item in self.items:
            if item.record is None:
                self.recorder.assemble(item, log=self.log)

    def _record_failure(self, event: Event) -> None:
        """Record the trial in flight as failed, unless the worker did all that it could."""
        if event.status is Status.SUCCEEDED and any(item.record for item in self.items):
            return
        self.recorder.fail([self.in_flight], _failure(event), self._message(event), self.log)

    def _message(self, event: Event) -> str:
        message = event.message or "the worker ended without a message"
        if event.status is Status.OUT_OF_MEMORY and not self.co_scheduled:  # a killed worker cannot report its activity
            message = f"{message} while it was {self.activity}"
        return f"{message} ({self.place.name})" if self.place.name else message


def _failure(event: Event) -> Status:
    return Status.FAILED if event.status in (None, Status.SUCCEEDED) else event.status
