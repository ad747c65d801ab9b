"""Tests of workers that die, run out of memory or time, or refuse a job: which trials fail, and which run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.engines import Engine
from harness.core.errors import EngineError
from harness.core.job import Event, EventKind, Job
from harness.core.machine import Machine
from harness.core.measurement import Basis, Measurement, Phase, Shortage
from harness.core.names import BASE
from harness.core.run import TrialRecord
from harness.core.suite import Split
from harness.core.training_outcome import Status, Training
from harness.core.units import Unit
from harness.runner.composition import Composition
from harness.runner.executors.inline import Inline
from harness.runner.executors.protocol import Executor, Place
from harness.storage.cache import Cache
from harness.storage.records import read_record
from harness.storage.runs import RunStore
from tests.support.fake_workers import (
    NAMES,
    SETUP,
    A,
    B,
    C,
    D,
    EventList,
    Workers,
    ends,
    go,
    nobody,
    sweep,
)
from tests.support.made_results import commit, machine

# --- workers that die --------------------------------------------------------------------------------------------


def test_a_dead_worker_fails_one_trial(tmp_path: Path) -> None:
    """If a worker dies, its current trial fails with the worker's message and log, and a new worker runs the rest."""
    workers = Workers({B.id: RuntimeError("gone")})
    records = go(tmp_path, workers)
    assert ends(records) == {BASE: Status.SUCCEEDED, "a": Status.SUCCEEDED, "b": Status.FAILED, "c": Status.SUCCEEDED}
    assert (records["b"].message, records["b"].log) == ("RuntimeError: gone", "workers/003.log")
    assert [[NAMES[task.trial] for task in job.tasks] for job in workers.jobs] == [[BASE], ["a"], ["b"], ["c"]]
    assert records["c"].log == "workers/004.log"


def test_a_dead_fused_worker_is_retried_with_the_same_set(tmp_path: Path) -> None:
    """If a worker that trains several trials together dies, a new worker trains the unfinished trials together."""
    jobs: list[Job] = []

    def dying_once(job: Job, emit: Callable[[Event], None]) -> None:
        jobs.append(job)
        trouble = {} if len(jobs) > 2 else {B.id: RuntimeError("gone")}
        Workers(trouble)(job, emit)

    events: list[Event] = []
    once = replace(sweep(tmp_path, dying_once, setup=replace(SETUP, engine=Engine.FUSED)), listener=EventList(events))
    records = once.run_trials((A, B, C), Split.MAIN, "testing")
    assert {record.status for record in records} == {Status.SUCCEEDED}
    assert [[NAMES[task.trial] for task in job.tasks] for job in jobs] == [[BASE], ["a", "b", "c"], ["b", "c"]]
    assert [event.message for event in events if event.kind is EventKind.NOTICED] == [
        "unfinished trials start again: RuntimeError: gone"
    ]


def test_a_second_death_of_a_fused_worker_bisects_the_set(tmp_path: Path) -> None:
    """If trials trained together kill two workers, they are halved, and only the trial that kills workers fails."""
    workers = Workers({B.id: RuntimeError("gone")})
    records = go(tmp_path, workers, setup=replace(SETUP, engine=Engine.FUSED))
    assert ends(records) == {BASE: Status.SUCCEEDED, "a": Status.SUCCEEDED, "b": Status.FAILED, "c": Status.SUCCEEDED}
    assert [[NAMES[task.trial] for task in job.tasks] for job in workers.jobs] == [
        [BASE], ["a", "b", "c"], ["b", "c"], ["b"], ["c"],
    ]  # fmt: skip


def test_out_of_memory_bisects_the_set_at_once(tmp_path: Path) -> None:
    """If memory runs out for trials trained together, they are halved; only a lone trial is OUT_OF_MEMORY."""
    jobs: list[list[str]] = []

    def short(job: Job, emit: Callable[[Event], None]) -> None:
        names = [NAMES[task.trial] for task in job.tasks]
        jobs.append(names)
        emit(Event(EventKind.LOADED))
        if len(names) > 1 or "c" in names:
            raise MemoryError
        for task in job.tasks:
            commit(job, task)
            emit(Event(EventKind.FINISHED, task.trial, Status.SUCCEEDED))

    records = go(tmp_path, short, setup=replace(SETUP, engine=Engine.FUSED))
    assert ends(records) == {
        BASE: Status.SUCCEEDED,
        "a": Status.SUCCEEDED,
        "b": Status.SUCCEEDED,
        "c": Status.OUT_OF_MEMORY,
    }
    assert jobs == [[BASE], ["a", "b", "c"], ["a"], ["b"], ["c"]]


def test_results_committed_before_a_death_are_used(tmp_path: Path) -> None:
    """If a worker stores the results of several trials and then dies, all of them succeed and none is repeated."""
    jobs: list[Job] = []

    def silent(job: Job, emit: Callable[[Event], None]) -> None:
        jobs.append(job)
        emit(Event(EventKind.LOADED))
        for task in job.tasks:
            commit(job, task)
        raise RuntimeError("gone")

    records = go(tmp_path, silent, setup=replace(SETUP, engine=Engine.FUSED))
    assert set(ends(records).values()) == {Status.SUCCEEDED}
    assert [len(job.tasks) for job in jobs] == [1, 3]


def test_each_trial_kills_at_most_one_worker(tmp_path: Path) -> None:
    """If every trial kills its worker, one worker is started for each trial, and each trial has its own message."""
    workers = Workers({name: RuntimeError(NAMES[name]) for name in NAMES})
    records = go(tmp_path, workers)
    assert [record.message for record in records.values()] == [f"RuntimeError: {name}" for name in records]
    assert len(workers.jobs) == 4


def test_a_kill_for_memory_is_an_out_of_memory_result(tmp_path: Path) -> None:
    """If the system kills a worker for lack of memory, the trial that it was running is recorded as OUT_OF_MEMORY."""
    records = go(tmp_path, Workers({B.id: MemoryError("too large")}))
    assert ends(records) == {
        BASE: Status.SUCCEEDED, "a": Status.SUCCEEDED, "b": Status.OUT_OF_MEMORY, "c": Status.SUCCEEDED,
    }  # fmt: skip
    assert records["b"].message == "too large while it was starting"


@pytest.mark.parametrize(
    ("kinds", "doing"),
    [
        ([], "loading the base"),
        ([EventKind.LOADED, EventKind.STARTED], "starting"),
        ([EventKind.LOADED, EventKind.STARTED, EventKind.STEP], "training"),
        ([EventKind.LOADED, EventKind.STARTED, EventKind.STEP, EventKind.ANSWERING], "answering"),
    ],
)
def test_the_message_names_the_last_activity(tmp_path: Path, kinds: list[EventKind], doing: str) -> None:
    """If the system kills a worker for lack of memory, the message says what the worker was doing."""

    def killed(job: Job, emit: Callable[[Event], None]) -> None:
        for kind in kinds:
            emit(Event(kind, job.tasks[0].trial))
        raise MemoryError("the system killed the worker")

    assert go(tmp_path, killed, [A])[BASE].message == f"the system killed the worker while it was {doing}"


def short(on: Machine) -> Shortage:
    """Return a shortage of memory in a training on the machine `on`, with that machine's memory cap."""
    size = Measurement(2.0**30, Unit.BYTES, on.basis, on.device)
    return Shortage(Phase.TRAIN, size, size, memory_cap=on.memory_cap)


def test_a_shortage_is_stored_in_the_record(tmp_path: Path) -> None:
    """If a worker reports a shortage of memory in training or in loading, the shortage is stored in the record."""
    events = Event(EventKind.FINISHED, B.id, Status.OUT_OF_MEMORY, "too large", shortage=short(SETUP.machine))
    assert go(tmp_path, Workers({B.id: events}))["b"].shortage == events.shortage
    every = go(
        tmp_path,
        lambda job, emit: emit(replace(events, trial="")),
        setup=replace(SETUP, engine=Engine.REFERENCE),
        run="load",
    )
    assert {record.shortage for name, record in every.items() if name == "b"} == {events.shortage}


@pytest.mark.parametrize(
    "other",
    [
        machine("cuda"),
        machine("cuda", Basis.EMULATED),
        replace(machine("cuda", Basis.EMULATED), memory_cap=2 * 10**10),
        replace(machine("cuda", Basis.EMULATED), device="NVIDIA H100"),
    ],
    ids=["T4", "emulated", "cap", "device"],
)
def test_out_of_memory_is_reused_only_on_the_same_machine(tmp_path: Path, other: Machine) -> None:
    """An out-of-memory result is reused only if device, memory cap and basis (measured or emulated) are the same."""
    here = replace(machine("cuda", Basis.EMULATED), memory_cap=10**10)

    def commit_short(job: Job, emit: Callable[[Event], None]) -> None:
        for task in job.tasks:
            if task.settings:
                ended = Training(task.training, Status.OUT_OF_MEMORY, "", (), None, shortage=short(job.machine))
                Cache(Path(job.cache)).commit_training(ended, None)
            else:
                commit(job, task)
            emit(Event(EventKind.FINISHED, task.trial, Status.OUT_OF_MEMORY if task.settings else Status.SUCCEEDED))

    first = go(tmp_path, commit_short, [A], setup=replace(SETUP, machine=other))
    assert (first["a"].status, first["a"].shortage) == (Status.OUT_OF_MEMORY, short(other))
    assert go(tmp_path, nobody, [A], setup=replace(SETUP, machine=other), run="same") is not None
    workers = Workers()
    again = go(tmp_path, workers, [A], setup=replace(SETUP, machine=here), run="here")
    assert again["a"].status is Status.SUCCEEDED
    assert ("a", True) in [(name, train) for name, train, _ in workers.tasks]


@dataclass(frozen=True)
class TimingOut(Executor):
    """An executor that reports each failure of a worker as TIMED_OUT."""

    within: Executor

    def run(self, job: Path, log: Path, *, timeout: float | None, **more: Any) -> Generator[Event]:
        for event in self.within.run(job, log, timeout=timeout):
            died = event.kind is EventKind.ENDED and event.status is Status.FAILED
            yield replace(event, status=Status.TIMED_OUT, message="stopped") if died else event


def test_a_timeout_ends_one_trial(tmp_path: Path) -> None:
    """If a worker is stopped at the time limit, its current trial is TIMED_OUT, and a new worker runs the others."""
    each = replace(sweep(tmp_path, nobody), executor=TimingOut(Inline(Workers({A.id: RuntimeError()}))))
    records = {NAMES[record.trial]: record for record in each.run_trials([A, B], Split.MAIN, "testing")}
    assert ends(records) == {BASE: Status.SUCCEEDED, "a": Status.TIMED_OUT, "b": Status.SUCCEEDED}
    assert records["a"].message == "stopped"


def test_a_death_while_loading_fails_all_trials(tmp_path: Path) -> None:
    """If a worker dies while it loads the model, all trials fail with the worker's message; no new worker starts."""
    workers = Workers(unloadable=RuntimeError("no model"))
    records = go(tmp_path, workers)
    assert {(record.status, record.message) for record in records.values()} == {
        (Status.FAILED, "RuntimeError: no model")
    }
    assert (len(records), len(workers.jobs)) == (4, 1)


def test_a_reported_loading_failure_ends_all_trials(tmp_path: Path) -> None:
    """If a worker reports that the model cannot be loaded, all trials get the reported status; no new worker starts."""
    jobs: list[Job] = []

    def telling(job: Job, emit: Callable[[Event], None]) -> None:
        jobs.append(job)
        emit(Event(EventKind.FINISHED, "", Status.OUT_OF_MEMORY, "too large"))

    records = go(tmp_path, telling)
    assert {(record.status, record.message) for record in records.values()} == {(Status.OUT_OF_MEMORY, "too large")}
    assert (len(records), len(jobs)) == (4, 1)


def test_a_silent_worker_is_a_failure(tmp_path: Path) -> None:
    """If a worker ends with exit code 0, but has not finished any trial, all trials fail and no new worker starts."""
    records = go(tmp_path, lambda job, emit: None)
    assert {(record.status, record.message) for record in records.values()} == {
        (Status.FAILED, "the worker ended without a message")
    }


def test_a_reported_result_must_be_in_the_cache(tmp_path: Path) -> None:
    """If a worker reports a trial as finished, but its result is not in the cache, the trial fails; others continue."""
    records = go(tmp_path, Workers({B.id: Event(EventKind.FINISHED, B.id, Status.SUCCEEDED)}))
    assert ends(records) == {BASE: Status.SUCCEEDED, "a": Status.SUCCEEDED, "b": Status.FAILED, "c": Status.SUCCEEDED}
    assert "is not in the cache" in records["b"].message


def test_a_death_after_the_commit_loses_nothing(tmp_path: Path) -> None:
    """If a worker dies after it has stored a trial's answers, but before it reports them, the trial has succeeded."""

    def dying(job: Job, emit: Callable[[Event], None]) -> None:
        emit(Event(EventKind.LOADED))
        emit(Event(EventKind.STARTED, job.tasks[0].trial))
        commit(job, job.tasks[0])
        raise RuntimeError("just too late")

    assert set(ends(go(tmp_path, dying)).values()) == {Status.SUCCEEDED}


def test_a_refusal_ends_the_sweep(tmp_path: Path) -> None:
    """If a worker refuses the job, an EngineError has the worker's message, and records of finished trials are kept."""
    refusal = Event(EventKind.REFUSED, message="the template refuses\nTake another")
    with pytest.raises(EngineError, match=r"^the template refuses\nTake another$"):
        go(tmp_path, Workers({B.id: refusal}))
    store = RunStore(tmp_path / "run")
    assert {NAMES[record.trial] for record in store.records()} == {BASE, "a"}


# --- several places --------------------------------------------------------------------------------------------------


@dataclass
class Scripted(Executor):
    """An executor with two places that runs fake workers, and cannot load a base in the places in `broken`."""

    workers: Workers
    broken: tuple[str, ...] = ()
    slow: str = "GPU 1"
    """The place that takes longer to load a base, or to fail."""
    jobs: list[tuple[str, list[str]]] = field(default_factory=list)
    """For each job, the place and the names of its trials, in the order in which jobs started."""

    @property
    def places(self) -> tuple[Place, ...]:
        return (Place("GPU 0"), Place("GPU 1"))

    def run(self, job: Path, log: Path, *, timeout: float | None, place: Place, **more: Any) -> Generator[Event]:
        self.jobs.append((place.name, [NAMES.get(task.trial, task.trial) for task in read_record(job, Job).tasks]))
        if place.name == self.slow and len(self.jobs) < 3:
            time.sleep(0.3)  # meanwhile, the other place loads the base, or fails
        if place.name in self.broken:
            yield Event(EventKind.ENDED, status=Status.FAILED, message="CUDA error")
        else:
            yield from Inline(self.workers).run(job, log, timeout=timeout)


def on_two(folder: Path, executor: Scripted, **more: Any) -> tuple[dict[str, TrialRecord], list[Event]]:
    events: list[Event] = []
    each = replace(sweep(folder, nobody), executor=executor, listener=EventList(events), **more)
    return {NAMES[record.trial]: record for record in each.run_trials((A, B, C), Split.MAIN, "testing")}, events


@pytest.mark.parametrize("slow", ["GPU 0", "GPU 1"], ids=["which is loading it", "which has loaded it"])
def test_a_place_that_cannot_load_the_base_is_not_used(tmp_path: Path, slow: str) -> None:
    """If a place cannot load a base that another loads or has loaded, a notice names it; the other runs all trials."""
    executor = Scripted(Workers(), broken=("GPU 1",), slow=slow)
    records, events = on_two(tmp_path, executor)
    assert set(ends(records).values()) == {Status.SUCCEEDED}
    assert [place for place, _ in executor.jobs].count("GPU 1") == 1
    assert [event.message for event in events if event.kind is EventKind.NOTICED] == [
        "GPU 1 is not used any more, because the base could not be loaded: CUDA error (GPU 1)"
    ]


def test_a_base_that_no_place_can_load_fails_all_trials(tmp_path: Path) -> None:
    """If no place can load the base, all trials fail with the message and the place of the worker that tried."""
    records, _ = on_two(tmp_path, Scripted(Workers(), broken=("GPU 0", "GPU 1")))
    assert {record.status for record in records.values()} == {Status.FAILED}
    assert {record.message for record in records.values()} <= {"CUDA error (GPU 0)", "CUDA error (GPU 1)"}


def test_a_failure_that_a_worker_reports_names_the_place(tmp_path: Path) -> None:
    """If a worker reports that a trial failed, the record names the place; a result, such as divergence, does not."""
    failed = Event(EventKind.FINISHED, A.id, Status.FAILED, "RuntimeError: it broke")
    records, _ = on_two(tmp_path, Scripted(Workers({A.id: failed, B.id: Status.DIVERGED})))
    assert records["a"].message in {f"RuntimeError: it broke ({place})" for place in ("GPU 0", "GPU 1")}
    assert records["b"].message == "diverged"


def test_the_base_starts_first_and_then_the_longest_passes(tmp_path: Path) -> None:
    """Passes start in the order of their predicted times, the longest first, after the base model's answers."""
    executor = Scripted(Workers())
    on_two(tmp_path, executor, composition=Composition(weights={A.id: 1.0, B.id: 3.0, C.id: 2.0}))
    assert [names for _, names in executor.jobs] == [[BASE], ["b"], ["c"], ["a"]]


def test_passes_are_the_same_if_some_trials_are_finished(tmp_path: Path) -> None:
    """A pass of which a trial has a result already is not filled with trials of other passes."""
    workers = Workers()
    setup = replace(SETUP, engine=Engine.FUSED)
    go(tmp_path, Workers(), [B], setup=setup)
    again = replace(sweep(tmp_path, workers, setup=setup), composition=Composition(2))
    again.run_trials((A, B, C, D), Split.MAIN, "testing")
    assert [[NAMES[task.trial] for task in job.tasks] for job in workers.jobs] == [["a"], ["c", "d"]]
