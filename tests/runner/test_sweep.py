"""What is done and what is not, with workers that have no model: they take jobs, fill the cache, and die when told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import pytest

from harness.core.answers import Answer
from harness.core.engines import Engine
from harness.core.errors import EngineError, StoreError
from harness.core.hashing import digest
from harness.core.job import Event, EventKind, Job, Task
from harness.core.machine import Machine
from harness.core.measurement import Basis, Measurement, Phase, PhaseCost, Shortage
from harness.core.model import ModelRef
from harness.core.names import BASE
from harness.core.run import TrialRecord
from harness.core.settings import Quantization, Settings, Trial
from harness.core.suite import Assertion, Decoding, Example, Message, Split, Suite
from harness.core.training import Status, Training
from harness.core.units import Unit
from harness.runner.executors import Executor
from harness.runner.executors.inline import Inline
from harness.runner.listeners import Listener
from harness.runner.sweep import Sweep
from harness.storage.cache import AnswerPass, Cache
from harness.storage.keys import Setup
from harness.storage.runs import RunStore
from harness.suites.grids import trial_id
from tests.support.synthetic_runs import MoreSettings, case, cost, machine
from tests.support.synthetic_runs import suite as made_suite

CASES = (case("one"), case("two", prompt="Two?"), case("kept", split=Split.CONFIRM, prompt="Kept?"))
SUITE = made_suite(CASES)
SETUP = Setup(SUITE, ModelRef("none", "none", "0123"), machine(), "reference", {"torch": "2.13.0"})


def trial(rate: float, seed: int = 0, quantization: Quantization = Quantization.NF4) -> Trial:
    settings = Settings(learning_rate=rate, quantization=quantization)
    return Trial(trial_id(settings, seed), f"v{rate:g}", settings, seed)


A, B, C = trial(1e-4), trial(2e-4), trial(3e-4)
NAMES = {A.id: "a", B.id: "b", C.id: "c", BASE: BASE}


@dataclass
class Workers:
    """Does what a worker does. `trouble`, by trial, is what happens instead of the work.

    An exception is died of; an event is said; a status is how the training ends.
    """

    trouble: Mapping[str, Exception | Event | Status] = field(default_factory=dict)
    unloadable: Exception | None = None
    jobs: list[Job] = field(default_factory=list)

    def __call__(self, job: Job, emit: Callable[[Event], None]) -> None:
        self.jobs.append(job)
        if self.unloadable:
            raise self.unloadable
        emit(Event(EventKind.LOADED))
        for task in job.tasks:
            emit(Event(EventKind.STARTED, task.trial))
            trouble = self.trouble.get(task.trial)
            if isinstance(trouble, Exception):
                raise trouble
            if isinstance(trouble, Event):
                emit(trouble)
                continue
            status = trouble or Status.SUCCEEDED
            commit(job, task, status)
            emit(Event(EventKind.FINISHED, task.trial, status, "" if status is Status.SUCCEEDED else status.value))

    @property
    def tasks(self) -> list[tuple[str, bool, list[str]]]:
        """Whose, whether it trains, and what it asks, over all jobs."""
        return [
            (NAMES.get(task.trial, task.trial), task.train, [prompt.messages[-1].content for prompt in task.prompts])
            for job in self.jobs
            for task in job.tasks
        ]


def commit(job: Job, task: Task, status: Status = Status.SUCCEEDED) -> None:
    """What a real worker leaves in the cache."""
    cache = Cache(Path(job.cache))
    if task.settings and task.train:
        message = "" if status is Status.SUCCEEDED else status.value
        cache.commit_training(Training(task.training, status, message, (), cost(Phase.TRAIN, 5.0)), None)
    if task.prompts and status is Status.SUCCEEDED:
        answers = tuple(Answer(p.key, f"to {p.messages[-1].content}", 2, False) for p in task.prompts)
        costs = (cost(Phase.ANSWER_AFTER if task.settings else Phase.ANSWER_BEFORE, 2.0),)
        cache.commit_answers(task.training, AnswerPass(answers, costs))


@dataclass(frozen=True)
class EventList(Listener):
    """Appends every event to `events`."""

    events: list[Event]

    def on_event(self, event: Event) -> None:
        self.events.append(event)


def sweep(folder: Path, workers: Callable[..., object], *, setup: Setup = SETUP, run: str = "run") -> Sweep:
    return Sweep(setup, RunStore(folder / run), Cache(folder / "cache"), Inline(workers))


def go(
    folder: Path,
    workers: Callable[..., object],
    trials: Sequence[Trial] = (A, B, C),
    *,
    setup: Setup = SETUP,
    split: Split = Split.MAIN,
    run: str = "run",
) -> dict[str, TrialRecord]:
    """The records of a sweep, which are also what it left behind."""
    each = sweep(folder, workers, setup=setup, run=run)
    records = each.go(trials, split, "testing")
    assert all(each.run.record(split, record.trial) == record for record in records)
    return {NAMES.get(record.trial, record.trial): record for record in records}


def nobody(job: Job, emit: Callable[[Event], None]) -> NoReturn:
    pytest.fail(f"a worker was started for {[task.trial for task in job.tasks]}")


def texts(record: TrialRecord) -> dict[str, list[str]]:
    """The answers by case, one per repeat."""
    return {name: [answer.text for answer in repeats] for name, repeats in record.answers.items()}


def ends(records: Mapping[str, TrialRecord]) -> dict[str, Status]:
    return {name: record.status for name, record in records.items()}


# --- what is there is not done again -----------------------------------------------------------------------------


def test_everything_is_done_once(tmp_path: Path) -> None:
    """One worker is given the base and every trial with every case of the split; each gets its record and answers."""
    workers, told = Workers(), list[Event]()
    each = replace(sweep(tmp_path, workers), listener=EventList(told))
    records = each.go([A, B], Split.MAIN, "testing")
    asked = [one.prompt for one in CASES[:2]]
    assert workers.tasks == [(BASE, False, asked), ("a", True, asked), ("b", True, asked)]
    assert [record.trial for record in records] == [BASE, A.id, B.id]
    for record in records:
        assert texts(record) == {"one": [f"to {CASES[0].prompt}"], "two": ["to Two?"]}
        assert (record.status, record.reused, record.log) == (Status.SUCCEEDED, False, "workers/001.log")
    assert [event.total for event in told if event.kind is EventKind.PLANNED] == [3]
    assert [event.kind for event in told][-1] is EventKind.ENDED


def test_a_record_that_is_there_needs_no_worker(tmp_path: Path) -> None:
    """The same once more, even with an empty cache, is read from the run."""
    first = go(tmp_path, Workers())
    Cache(tmp_path / "cache").clear()
    assert go(tmp_path, nobody) == first


def test_what_is_cached_needs_no_worker(tmp_path: Path) -> None:
    """Killed between commit and record, or run elsewhere before, a trial's record is made from the cache."""
    first = go(tmp_path, Workers())
    (tmp_path / "run" / "trials" / A.id / "record.json").unlink()
    again = go(tmp_path, nobody)
    assert again["a"] == replace(first["a"], reused=True, log="")
    assert [again[name] for name in (BASE, "b", "c")] == [first[name] for name in (BASE, "b", "c")]
    elsewhere = go(tmp_path, nobody, run="elsewhere")
    assert elsewhere == {name: replace(record, reused=True, log="") for name, record in first.items()}


def test_a_kill_between_training_and_answering_trains_once(tmp_path: Path) -> None:
    """An adapter that is there is only asked, and its record says that it is of an earlier run."""
    go(tmp_path, Workers(), [A])
    training = SETUP.training_id(A.settings, A.seed)
    for path in (tmp_path / "cache" / "answers" / training).iterdir():
        path.unlink()
    workers = Workers()
    record = go(tmp_path, workers, [A], run="elsewhere")["a"]
    assert [(name, train, len(asked)) for name, train, asked in workers.tasks] == [("a", False, 2)]
    assert (record.status, record.reused, record.log) == (Status.SUCCEEDED, True, "workers/001.log")
    assert [spent.phase for spent in record.costs] == [Phase.TRAIN, Phase.ANSWER_AFTER]


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMED_OUT])
def test_failures_are_tried_again(tmp_path: Path, status: Status) -> None:
    """FAILED and TIMED_OUT are no results: the next session tries them, and only them, anew."""
    broken = Workers({B.id: Event(EventKind.FINISHED, B.id, status, "why")})
    first = go(tmp_path, broken)
    assert ends(first) == {BASE: Status.SUCCEEDED, "a": Status.SUCCEEDED, "b": status, "c": Status.SUCCEEDED}
    assert (first["b"].message, first["b"].log, first["b"].answers) == ("why", "workers/001.log", {})
    workers = Workers()
    assert set(ends(go(tmp_path, workers)).values()) == {Status.SUCCEEDED}
    assert [(name, train) for name, train, _ in workers.tasks] == [("b", True)]


@pytest.mark.parametrize("status", [Status.DIVERGED, Status.OUT_OF_MEMORY])
def test_results_are_not_tried_again(tmp_path: Path, status: Status) -> None:
    """DIVERGED and OUT_OF_MEMORY are results: they stand, in this run and in every other that asks the same."""
    first = go(tmp_path, Workers({B.id: status}))
    assert (first["b"].status, first["b"].message) == (status, status.value)
    assert first["b"].costs == (cost(Phase.TRAIN, 5.0),)
    assert go(tmp_path, nobody) == first
    assert go(tmp_path, nobody, run="elsewhere")["b"].status is status


def test_a_record_of_another_training_does_not_count(tmp_path: Path) -> None:
    """Where a run's directory was edited, how another training ended says nothing."""
    go(tmp_path, Workers({A.id: Status.DIVERGED}), [A])
    other = replace(SETUP, versions={"torch": "2.14.0"})
    assert ends(go(tmp_path, Workers(), [A], setup=other)) == {BASE: Status.SUCCEEDED, "a": Status.SUCCEEDED}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    """It is not taken for missing, which would hide that a disk fails: its path and what to do are said."""
    go(tmp_path, Workers())
    path = tmp_path / "run" / "trials" / A.id / "record.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=f"{path} is damaged"):
        go(tmp_path, nobody)


# --- workers that die --------------------------------------------------------------------------------------------


def test_a_death_in_flight_takes_one_trial(tmp_path: Path) -> None:
    """What was in flight ended as its worker did, with the worker's log; a fresh one is given what is left."""
    workers = Workers({B.id: RuntimeError("gone")})
    records = go(tmp_path, workers)
    assert ends(records) == {BASE: Status.SUCCEEDED, "a": Status.SUCCEEDED, "b": Status.FAILED, "c": Status.SUCCEEDED}
    assert (records["b"].message, records["b"].log) == ("RuntimeError: gone", "workers/001.log")
    assert [[NAMES[task.trial] for task in job.tasks] for job in workers.jobs] == [[BASE, "a", "b", "c"], ["c"]]
    assert records["c"].log == "workers/002.log"


def test_one_death_in_company_is_made_up_for(tmp_path: Path) -> None:
    """With the fused engine nobody is blamed: a fresh worker is given all that was not finished, the same as before."""
    jobs: list[Job] = []

    def dying_once(job: Job, emit: Callable[[Event], None]) -> None:
        jobs.append(job)
        trouble = {} if len(jobs) > 1 else {B.id: RuntimeError("gone")}
        Workers(trouble)(job, emit)

    told: list[Event] = []
    once = replace(sweep(tmp_path, dying_once, setup=replace(SETUP, engine=Engine.FUSED)), listener=EventList(told))
    records = once.go((A, B, C), Split.MAIN, "testing")
    assert {record.status for record in records} == {Status.SUCCEEDED}
    assert [[NAMES[task.trial] for task in job.tasks] for job in jobs] == [[BASE, "a", "b", "c"], ["b", "c"]]
    assert [event.message for event in told if event.kind is EventKind.NOTICED] == [
        "unfinished trials start again: RuntimeError: gone"
    ]


def test_a_second_death_in_company_leaves_fewer_in_the_next(tmp_path: Path) -> None:
    """Until one is alone with its worker: that one is blamed, and nobody else."""
    workers = Workers({B.id: RuntimeError("gone")})
    records = go(tmp_path, workers, setup=replace(SETUP, engine=Engine.FUSED))
    assert ends(records) == {BASE: Status.SUCCEEDED, "a": Status.SUCCEEDED, "b": Status.FAILED, "c": Status.SUCCEEDED}
    assert [[NAMES[task.trial] for task in job.tasks] for job in workers.jobs] == [
        [BASE, "a", "b", "c"], ["b", "c"], ["b"], ["c"],
    ]  # fmt: skip


def test_what_is_too_much_together_is_done_by_fewer(tmp_path: Path) -> None:
    """Memory that ends a worker of several says nothing of one of them: only who is alone with it is blamed."""
    jobs: list[list[str]] = []

    def short(job: Job, emit: Callable[[Event], None]) -> None:
        names = [NAMES[task.trial] for task in job.tasks]
        jobs.append(names)
        emit(Event(EventKind.LOADED))
        if len(names) > 2 or "c" in names:
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
    assert jobs == [[BASE, "a", "b", "c"], [BASE, "a"], ["b", "c"], ["b"], ["c"]]


def test_what_a_company_committed_is_used_when_its_worker_dies(tmp_path: Path) -> None:
    """Killed after its answers were committed, before it could tell, it leaves nothing to be begun again."""
    jobs: list[Job] = []

    def silent(job: Job, emit: Callable[[Event], None]) -> None:
        jobs.append(job)
        emit(Event(EventKind.LOADED))
        for task in job.tasks:
            commit(job, task)
        raise RuntimeError("gone")

    records = go(tmp_path, silent, setup=replace(SETUP, engine=Engine.FUSED))
    assert set(ends(records).values()) == {Status.SUCCEEDED}
    assert len(jobs) == 1


def test_deaths_in_every_flight_end(tmp_path: Path) -> None:
    """A worker for each trial, no more, and every trial has its own end."""
    workers = Workers({name: RuntimeError(NAMES[name]) for name in NAMES})
    records = go(tmp_path, workers)
    assert [record.message for record in records.values()] == [f"RuntimeError: {name}" for name in records]
    assert len(workers.jobs) == 4


def test_memory_that_ends_a_worker_is_a_result(tmp_path: Path) -> None:
    """A worker that the system killed for its memory leaves OUT_OF_MEMORY for what was in flight."""
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
def test_what_a_killed_worker_did_last_is_said(tmp_path: Path, kinds: list[EventKind], doing: str) -> None:
    """A worker that the system kills for its memory tells nothing more, so that is read off what it told before."""

    def killed(job: Job, emit: Callable[[Event], None]) -> None:
        for kind in kinds:
            emit(Event(kind, job.tasks[0].trial))
        raise MemoryError("the system killed the worker")

    assert go(tmp_path, killed, [A])[BASE].message == f"the system killed the worker while it was {doing}"


def short(on: Machine) -> Shortage:
    """Of a training on that machine, under its cap."""
    size = Measurement(2.0**30, Unit.BYTES, on.basis, on.device)
    return Shortage(Phase.TRAIN, size, size, memory_cap=on.memory_cap)


def test_how_memory_ran_out_is_in_the_record(tmp_path: Path) -> None:
    """What the worker told, whether it is kept beside a training or was met while answering or loading."""
    told = Event(EventKind.FINISHED, B.id, Status.OUT_OF_MEMORY, "too large", shortage=short(SETUP.machine))
    assert go(tmp_path, Workers({B.id: told}))["b"].shortage == told.shortage
    every = go(
        tmp_path,
        lambda job, emit: emit(replace(told, trial="")),
        setup=replace(SETUP, engine=Engine.REFERENCE),
        run="load",
    )
    assert {record.shortage for name, record in every.items() if name == "b"} == {told.shortage}


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
def test_what_did_not_fit_elsewhere_is_tried_here(tmp_path: Path, other: Machine) -> None:
    """Out of memory stands for a machine with the same device, basis and cap, and for no other."""
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
class Impatient:
    """Says of a worker that died that it was stopped."""

    within: Executor

    def run(self, job: Path, log: Path, *, timeout: float | None, until: float | None = None) -> Iterator[Event]:
        for event in self.within.run(job, log, timeout=timeout):
            died = event.kind is EventKind.ENDED and event.status is Status.FAILED
            yield replace(event, status=Status.TIMED_OUT, message="stopped") if died else event


def test_a_stopped_trial_is_one_trial(tmp_path: Path) -> None:
    """The trial that took too long is TIMED_OUT; the others are done by a fresh worker."""
    each = replace(sweep(tmp_path, nobody), executor=Impatient(Inline(Workers({A.id: RuntimeError()}))))
    records = {NAMES[record.trial]: record for record in each.go([A, B], Split.MAIN, "testing")}
    assert ends(records) == {BASE: Status.SUCCEEDED, "a": Status.TIMED_OUT, "b": Status.SUCCEEDED}
    assert records["a"].message == "stopped"


def test_a_death_before_anything_is_loaded_ends_all(tmp_path: Path) -> None:
    """A model that does not load will not load for the next trial: all end alike, after one try."""
    workers = Workers(unloadable=RuntimeError("no model"))
    records = go(tmp_path, workers)
    assert {(record.status, record.message) for record in records.values()} == {
        (Status.FAILED, "RuntimeError: no model")
    }
    assert (len(records), len(workers.jobs)) == (4, 1)


def test_a_load_that_fails_and_says_so_ends_all(tmp_path: Path) -> None:
    """The same where the worker lives to tell it."""
    jobs: list[Job] = []

    def telling(job: Job, emit: Callable[[Event], None]) -> None:
        jobs.append(job)
        emit(Event(EventKind.FINISHED, "", Status.OUT_OF_MEMORY, "too large"))

    records = go(tmp_path, telling)
    assert {(record.status, record.message) for record in records.values()} == {(Status.OUT_OF_MEMORY, "too large")}
    assert (len(records), len(jobs)) == (4, 1)


def test_a_silent_worker_is_a_failure(tmp_path: Path) -> None:
    """One that ends well and has done nothing is not started again for ever."""
    records = go(tmp_path, lambda job, emit: None)
    assert {(record.status, record.message) for record in records.values()} == {
        (Status.FAILED, "the worker ended without a message")
    }


def test_a_claim_without_proof_is_a_failure(tmp_path: Path) -> None:
    """What a worker calls finished and did not leave in the cache has failed, and the others go on."""
    records = go(tmp_path, Workers({B.id: Event(EventKind.FINISHED, B.id, Status.SUCCEEDED)}))
    assert ends(records) == {BASE: Status.SUCCEEDED, "a": Status.SUCCEEDED, "b": Status.FAILED, "c": Status.SUCCEEDED}
    assert "is not in the cache" in records["b"].message


def test_a_death_after_the_commit_loses_nothing(tmp_path: Path) -> None:
    """A worker that dies with its answers committed, before it can say so, has done the trial."""

    def dying(job: Job, emit: Callable[[Event], None]) -> None:
        emit(Event(EventKind.LOADED))
        emit(Event(EventKind.STARTED, job.tasks[0].trial))
        commit(job, job.tasks[0])
        raise RuntimeError("just too late")

    assert set(ends(go(tmp_path, dying)).values()) == {Status.SUCCEEDED}


def test_a_refusal_ends_the_sweep(tmp_path: Path) -> None:
    """A mistake in what was given would meet every trial: it is raised as it was said; what was done stays done."""
    refusal = Event(EventKind.REFUSED, message="the template refuses\nTake another")
    with pytest.raises(EngineError, match=r"^the template refuses\nTake another$"):
        go(tmp_path, Workers({B.id: refusal}))
    store = RunStore(tmp_path / "run")
    assert {NAMES[record.trial] for record in store.records()} == {BASE, "a"}


# --- what changes what -------------------------------------------------------------------------------------------


def with_suite(**changes: object) -> Setup:
    return replace(SETUP, suite=replace(SUITE, **changes))  # type: ignore[arg-type]


def work_after(folder: Path, setup: Setup, trials: Sequence[Trial] = (A,)) -> list[tuple[str, bool, list[str]]]:
    """What is done for `setup` when SETUP has been done."""
    go(folder, Workers(), [A])
    workers = Workers()
    assert set(ends(go(folder, workers, trials, setup=setup, run="after")).values()) == {Status.SUCCEEDED}
    return workers.tasks


def test_an_added_case_is_asked_alone(tmp_path: Path) -> None:
    """Nothing is trained, and nothing that has an answer is asked again."""
    setup = with_suite(cases=(*CASES, case("three", prompt="Three?")))
    assert work_after(tmp_path, setup) == [(BASE, False, ["Three?"]), ("a", False, ["Three?"])]


def test_an_added_case_is_asked_in_the_same_run_too(tmp_path: Path) -> None:
    """A record that lacks a case does not count, wherever it lies."""
    go(tmp_path, Workers(), [A])
    workers = Workers()
    records = go(tmp_path, workers, [A], setup=with_suite(cases=(*CASES, case("three", prompt="Three?"))))
    assert [asked for _, _, asked in workers.tasks] == [["Three?"]] * 2
    assert all(set(record.answers) == {"one", "two", "three"} for record in records.values())


def test_a_removed_case_needs_no_worker(tmp_path: Path) -> None:
    """What is left has its answers."""
    assert work_after(tmp_path, with_suite(cases=CASES[1:])) == []


def test_assertions_and_places_change_nothing(tmp_path: Path) -> None:
    """Neither a case's assertions, id, role or line nor an example's line has to do with answers."""
    cases = tuple(
        replace(one, id=f"{one.id}-b", line=one.line + 7, assertions=(Assertion("equals", "x"),), description="new")
        for one in CASES
    )
    examples = tuple(replace(example, line=example.line + 7) for example in SUITE.examples)
    setup = with_suite(cases=cases, examples=examples, folder="elsewhere", margin=1.0)
    assert setup.training_id(A.settings, 0) == SETUP.training_id(A.settings, 0)
    assert [setup.prompt("t", one).key for one in cases] == [SETUP.prompt("t", one).key for one in CASES]
    assert work_after(tmp_path, setup) == []


def test_decoding_asks_again_and_trains_nothing(tmp_path: Path) -> None:
    """Answers of another length are other answers of the same adapter."""
    assert [(name, train, len(asked)) for name, train, asked in work_after(
        tmp_path, with_suite(decoding=Decoding(9))
    )] == [(BASE, False, 2), ("a", False, 2)]  # fmt: skip


def test_a_reference_asks_its_case_again(tmp_path: Path) -> None:
    """So do choices; no other case is asked, and nothing trained. Each is handed to the worker."""
    edited = replace(CASES[1], reference="Two.", choices=("a", "b"))
    assert work_after(tmp_path / "one", with_suite(cases=(CASES[0], edited, CASES[2]))) == [
        (BASE, False, ["Two?"]),
        ("a", False, ["Two?"]),
    ]
    asked = with_suite(cases=(edited,)).prompt("t", edited)
    assert (asked.reference, asked.choices) == ("Two.", ("a", "b"))


DRAWN = Decoding(temperature=0.7)


def test_more_repeats_ask_only_the_new_ones(tmp_path: Path) -> None:
    """Fewer ask nothing; the answers that are there stay, in their order."""
    go(tmp_path, Workers(), [A], setup=with_suite(decoding=DRAWN, repeats=2), run="two")
    workers = Workers()
    four = go(tmp_path, workers, [A], setup=with_suite(decoding=DRAWN, repeats=4), run="four")
    assert [(name, train, len(asked)) for name, train, asked in workers.tasks] == [(BASE, False, 4), ("a", False, 4)]
    keys = [[answer.key for answer in repeats] for repeats in four["a"].answers.values()]
    assert [len(set(own)) for own in keys] == [4, 4]
    assert four == go(tmp_path, nobody, [A], setup=with_suite(decoding=DRAWN, repeats=4), run="four")
    three = go(tmp_path, nobody, [A], setup=with_suite(decoding=DRAWN, repeats=3), run="three")
    assert [[answer.key for answer in repeats] for repeats in three["a"].answers.values()] == [own[:3] for own in keys]


def test_a_case_without_all_its_repeats_is_not_finished(tmp_path: Path) -> None:
    """A record that lacks a repeat does not count."""
    go(tmp_path, Workers(), [A], setup=with_suite(decoding=DRAWN, repeats=2))
    workers = Workers()
    found = go(tmp_path, workers, [A], setup=with_suite(decoding=DRAWN, repeats=3))
    assert [len(asked) for _, _, asked in workers.tasks] == [2, 2]
    assert [len(repeats) for repeats in found["a"].answers.values()] == [3, 3]


def test_what_was_not_always_there_changes_no_other_key() -> None:
    """The key of a greedy answer without reference and choices is of training, messages, limit and stops alone."""
    plain = replace(CASES[0], reference=None)
    key = digest({"of": "t", "messages": plain.messages, "decoding": {"max_new_tokens": 64, "stop": ()}})
    assert SETUP.prompt("t", plain).key == key
    others = [
        SETUP.prompt("t", CASES[0]),
        SETUP.prompt("t", replace(plain, reference="")),
        SETUP.prompt("t", replace(plain, choices=("a", "b"))),
        SETUP.prompt("t", replace(plain, choices=("b", "a"))),
        with_suite(decoding=DRAWN).prompt("t", plain),
        with_suite(decoding=DRAWN).prompt("t", plain, 1),
    ]
    assert len({key, *(other.key for other in others)}) == 7


BASE_AND_A = [(BASE, False, 2), ("a", True, 2)]


@pytest.mark.parametrize(
    ("setup", "expected"),
    [
        (with_suite(examples=(Example((Message("user", "Hello"), Message("assistant", "good night"))),)),
         [("a", True, 2)]),
        (with_suite(examples=SUITE.examples * 2), [("a", True, 2)]),
        (replace(SETUP, model=replace(SETUP.model, digest="4567")), BASE_AND_A),
        (replace(SETUP, versions={"torch": "2.14.0"}), BASE_AND_A),
        (replace(SETUP, machine=machine("cuda")), BASE_AND_A),
        (replace(SETUP, machine=replace(machine(), compute_dtype="bfloat16")), BASE_AND_A),
    ],
    ids=["example", "more examples", "model", "library", "device", "dtype"],
)  # fmt: skip
def test_what_is_trained_from_trains_anew(tmp_path: Path, setup: Setup, expected: list[tuple[str, bool, int]]) -> None:
    """Another example, model, library or device makes another adapter; the base answers anew where it is concerned."""
    found = work_after(tmp_path, setup)
    assert [(name, train, len(asked)) for name, train, asked in found] == expected


@pytest.mark.parametrize(
    "other",
    [
        replace(A, settings=replace(A.settings, learning_rate=1.1e-4)),
        replace(A, settings=replace(A.settings, target_modules=("q_proj",))),
        replace(A, seed=1),
    ],
    ids=["rate", "targets", "seed"],
)
def test_settings_and_seed_train_anew(tmp_path: Path, other: Trial) -> None:
    """Also where the trial bears the old name; the base is not asked again."""
    assert [(name, train, len(asked)) for name, train, asked in work_after(tmp_path, SETUP, [other])] == [
        ("a", True, 2)
    ]


def test_a_cache_is_still_used_after_an_axis_is_added(tmp_path: Path) -> None:
    """Trainings and answers cached before an axis was added are used where it has its default, and only there."""
    go(tmp_path, Workers(), [A])
    before = sweep(tmp_path, nobody, run="later")
    default = MoreSettings(**A.settings.as_dict())
    records = before.go([replace(A, settings=default)], Split.MAIN, "testing")
    assert [(record.status, record.reused) for record in records] == [(Status.SUCCEEDED, True)] * 2
    work = Workers()
    other = replace(A, settings=replace(default, noise=5.0))
    sweep(tmp_path, work, run="other").go([other], Split.MAIN, "testing")
    assert [(trial, train) for trial, train, _ in work.tasks] == [("a", True)]


def test_name_path_and_threads_change_no_id() -> None:
    """The same model elsewhere, under another name, on a machine with more cores, has the same adapters."""
    moved = replace(
        SETUP, model=ModelRef("other", "elsewhere", SETUP.model.digest), machine=replace(machine(), threads=64)
    )
    assert moved.training_id(A.settings, 0) == SETUP.training_id(A.settings, 0)
    assert moved.base_id(Quantization.NF4) == SETUP.base_id(Quantization.NF4)


def test_forgotten_is_done_anew(tmp_path: Path) -> None:
    """What is forgotten of the trials and the base is trained and asked again; other trials' stay."""
    go(tmp_path, Workers(), [A, B])
    sweep(tmp_path, nobody).forget([A])
    workers = Workers()
    records = go(tmp_path, workers, [A, B], run="elsewhere")
    assert [(name, train) for name, train, _ in workers.tasks] == [(BASE, False), ("a", True)]
    assert {name: record.reused for name, record in records.items()} == {BASE: False, "a": False, "b": True}


# --- jobs and costs ----------------------------------------------------------------------------------------------


def test_one_job_per_quantization(tmp_path: Path) -> None:
    """A worker has one base model in one form: two quantisations are two jobs, and the base is asked in the first."""
    plain = trial(1e-4, quantization=Quantization.NONE)
    workers = Workers()
    records = go(tmp_path, workers, [A, plain, B])
    assert [(job.quantization, [task.trial for task in job.tasks]) for job in workers.jobs] == [
        (Quantization.NF4, [BASE, A.id, B.id]),
        (Quantization.NONE, [plain.id]),
    ]
    assert list(records) == [BASE, "a", plain.id, "b"]
    assert len({job.tasks[0].training for job in workers.jobs}) == 2


def test_splits_have_records_of_their_own(tmp_path: Path) -> None:
    """Confirmation asks only its cases, trains nothing that is there, and leaves the main records alone."""
    first = go(tmp_path, Workers(), [A])
    workers = Workers()
    confirmed = go(tmp_path, workers, [A], split=Split.CONFIRM)
    assert workers.tasks == [(BASE, False, ["Kept?"]), ("a", False, ["Kept?"])]
    assert set(confirmed["a"].answers) == {"kept"}
    assert go(tmp_path, nobody, [A]) == first


def test_the_same_question_is_asked_once(tmp_path: Path) -> None:
    """Cases that ask the same have the same answer."""
    suite: Suite = replace(SUITE, cases=(CASES[1], replace(CASES[1], id="again")))
    workers = Workers()
    records = go(tmp_path, workers, [A], setup=replace(SETUP, suite=suite))
    assert [asked for _, _, asked in workers.tasks] == [["Two?"]] * 2
    assert texts(records["a"]) == {"two": ["to Two?"], "again": ["to Two?"]}


def test_passes_count_as_one(tmp_path: Path) -> None:
    """Of several passes seconds and tokens add up, every peak is the largest, and the model is loaded once."""

    def spent(phase: Phase, seconds: float, peak: int) -> PhaseCost:
        return cost(phase, seconds, machine("cuda"), peak)

    def in_passes(job: Job, emit: Callable[[Event], None]) -> None:
        first, cache = job.tasks[0], Cache(Path(job.cache))
        emit(Event(EventKind.LOADED))
        for number, prompt in enumerate(first.prompts, start=1):
            costs = (spent(Phase.LOAD, 1.0, 100), spent(Phase.ANSWER_BEFORE, 2.0 * number, 200 * number))
            cache.commit_answers(first.training, AnswerPass((Answer(prompt.key, "x", 1, False),), costs))
        emit(Event(EventKind.FINISHED, first.trial, Status.SUCCEEDED))

    costs = go(tmp_path, in_passes, [A])[BASE].costs
    assert [each.phase for each in costs] == [Phase.LOAD, Phase.ANSWER_BEFORE]
    load, answering = costs
    assert load == spent(Phase.LOAD, 1.0, 100)
    assert (answering.seconds.value, answering.tokens) == (6.0, 3000)
    peaks = [answering.peak_resident, answering.peak_allocated, answering.peak_reserved, answering.peak_device]
    assert [peak.value for peak in peaks if isinstance(peak, Measurement)] == [400.0] * 4


def test_other_cases_passes_do_not_count(tmp_path: Path) -> None:
    """What confirming took is not part of what the main cases took."""
    first = go(tmp_path, Workers(), [A])
    go(tmp_path, Workers(), [A], split=Split.CONFIRM)
    assert go(tmp_path, nobody, [A], run="elsewhere")["a"].costs == first["a"].costs


def test_a_listener_that_breaks_leaves_what_is_done(tmp_path: Path) -> None:
    """An interruption from outside ends the worker and keeps every record that was written."""
    closed: list[str] = []

    class Watched:
        def run(self, job: Path, log: Path, *, timeout: float | None, until: float | None = None) -> Iterator[Event]:
            try:
                yield from Inline(Workers()).run(job, log, timeout=timeout)
            finally:
                closed.append(job.name)

    class Interrupting(Listener):
        def on_event(self, event: Event) -> None:
            if event.kind is EventKind.FINISHED and event.trial == A.id:
                raise KeyboardInterrupt

    each = replace(sweep(tmp_path, nobody), executor=Watched(), listener=Interrupting())
    with pytest.raises(KeyboardInterrupt):
        each.go([A, B], Split.MAIN, "testing")
    assert closed == ["001.json"]
    assert {NAMES[record.trial] for record in each.run.records()} == {BASE, "a"}
