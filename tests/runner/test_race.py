"""Tests of races: who stops, what is kept, and that an interrupted race has the same result. The workers are fakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from harness.analysis import aggregate
from harness.core.answers import Answer
from harness.core.engines import Engine
from harness.core.job import Event, EventKind, Job, Task
from harness.core.measurement import Phase
from harness.core.run import RunManifest, TrialRecord
from harness.core.settings import Settings, Variant
from harness.core.suite import Role, Split
from harness.core.training_outcome import Status
from harness.report import race as report
from harness.runner.budget import Budget
from harness.runner.executors.inline import Inline
from harness.runner.race import run_race
from harness.runner.sweep import Sweep
from harness.storage.cache import AnswerPass, Cache, state_id
from harness.storage.keys import Setup
from harness.storage.runs import RunStore
from tests.support.fake_workers import EventList, nobody
from tests.support.made_results import commit, cost
from tests.support.synthetic_runs import case, manifest, score, suite

LEARNED = {1e-4: 38, 2e-4: 36, 3e-4: 8, 4e-4: 39, 5e-4: 0}
"""Learning rate of a variant to the number of the 40 `generalise` cases that it passes."""
LOST = {4e-4: 28}
"""Learning rate to the number of the 30 `retain` cases that it fails; the others fail none."""
DIVERGES = 5e-4
SUITE = suite(
    [case(f"g{n}", Role.GENERALISE, prompt=f"g {n}") for n in range(40)]
    + [case(f"r{n}", Role.RETAIN, prompt=f"r {n}") for n in range(30)]
    + [case(f"l{n}", Role.LEARN, prompt=f"l {n}") for n in range(5)],
    margin=15.0,
)
VARIANTS = [Variant(f"v{rate:g}", f"lr={rate:g}", Settings(learning_rate=rate, epochs=10.0)) for rate in LEARNED]
RUN: RunManifest = manifest(SUITE, VARIANTS, (0,))
SEEDS: RunManifest = manifest(SUITE, VARIANTS, (0, 1, 2))
SETUP = Setup(SUITE, RUN.model, RUN.provenance.machine, Engine.REFERENCE, {"torch": "2.13.0"})
SHORT = {"v0.0001": "good", "v0.0002": "fine", "v0.0003": "poor", "v0.0004": "forgets", "v0.0005": "diverges"}


class Killed(BaseException):
    """The process was killed."""


@dataclass
class Racers:
    """A fake worker whose models pass as many cases as `LEARNED` and `LOST` say. It may be killed before a task."""

    killed_before: int = -1
    tasks: list[Task] = field(default_factory=list)

    def __call__(self, job: Job, emit: Callable[[Event], None]) -> None:
        emit(Event(EventKind.LOADED))
        for task in job.tasks:
            if len(self.tasks) == self.killed_before:
                raise Killed
            self.tasks.append(task)
            emit(Event(EventKind.STARTED, task.trial))
            rate = task.settings.learning_rate if task.settings else 0.0
            status = Status.DIVERGED if rate == DIVERGES else Status.SUCCEEDED
            commit(job, replace(task, prompts=()), status)
            if status is Status.SUCCEEDED:
                answers = tuple(
                    Answer(each.key, _text(rate, each.messages[-1].content), 2, False) for each in task.prompts
                )
                phase = Phase.ANSWER_AFTER if task.settings else Phase.ANSWER_BEFORE
                Cache(Path(job.cache)).commit_answers(task.training, AnswerPass(answers, (cost(phase, 2.0),)))
            emit(Event(EventKind.FINISHED, task.trial, status, "" if status is Status.SUCCEEDED else "loss was nan"))


def _text(rate: float, prompt: str) -> str:
    kind, number = prompt.split()
    passes = int(number) >= LOST.get(rate, 0) if kind == "r" else int(number) < LEARNED.get(rate, 0)
    return "good" if passes else "bad"


def sweep(folder: Path, workers: Callable[..., object], run: str = "run") -> Sweep:
    return Sweep(SETUP, RunStore(folder / run), Cache(folder / "cache"), Inline(workers))


def race(folder: Path, workers: Callable[..., object], run: RunManifest = RUN) -> tuple[TrialRecord, ...]:
    return run_race(sweep(folder, workers), run, run.plan.trials, score, "training")


def ended(records: Sequence[TrialRecord]) -> dict[str, str]:
    """Return how each variant ended, by its short name, under its last seed."""
    own = sorted((record for record in records if record.settings), key=lambda record: record.seed)
    return {SHORT[record.variant]: f"{record.status}: {record.message}" for record in own}


def essence(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return records without what depends on the session: logs, and whether something was reused."""
    return [replace(record, log="", reused=False) for record in records]


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Racers, tuple[TrialRecord, ...]]:
    folder, workers = tmp_path_factory.mktemp("race"), Racers()
    return folder, workers, race(folder, workers)


def test_variants_that_can_no_longer_be_chosen_stop(raced: tuple[Path, Racers, tuple[TrialRecord, ...]]) -> None:
    """At the first look, a variant leaves that is worse, one that forgets, and one that diverged, with the reason."""
    how = ended(raced[2])
    assert (how["good"], how["fine"]) == ("succeeded: ", "succeeded: ")
    worse = "lr=0.0001 is better: they pass 38 and 8 of 40 generalise cases"
    assert how["poor"] == f"stopped: stopped after epoch 3 of 10: {worse}"
    assert how["forgets"].startswith("stopped: stopped after epoch 3 of 10: loses more than ")
    assert how["diverges"] == "diverged: diverged"


def test_what_stopped_is_not_trained_further(raced: tuple[Path, Racers, tuple[TrialRecord, ...]]) -> None:
    """Every trial is trained up to the first look, and only those that go on are trained from there, part by part."""
    parts = {
        name: [(task.until, bool(task.resume)) for task in raced[1].tasks if _named(task) == name]
        for name in SHORT.values()
    }
    assert parts["poor"] == parts["forgets"] == parts["diverges"] == [(3, False)]
    assert parts["good"] == parts["fine"] == [(3, False), (6, True), (0, True)]


def _named(task: Task) -> str:
    return SHORT.get(f"v{task.settings.learning_rate:g}", "") if task.settings else ""


def test_looks_ask_only_what_decides(raced: tuple[Path, Racers, tuple[TrialRecord, ...]]) -> None:
    """At a look, 40 generalise and 30 retain cases are asked, and learn cases only at the end of a training."""
    asked = {(task.until, len(task.prompts)) for task in raced[1].tasks if _named(task) == "good"}
    assert asked == {(3, 70), (6, 70), (0, 75)}
    [first, *_] = [record for record in raced[2] if record.variant == "v0.0001"]
    assert [(look.epoch, len(look.answers)) for look in first.looks] == [(3, 70), (6, 70)]


def test_states_of_optimizers_are_deleted(raced: tuple[Path, Racers, tuple[TrialRecord, ...]]) -> None:
    """After a race, the cache has the adapters of the looks, but no state from which a training would continue."""
    kept = [path.name for path in (raced[0] / "cache" / "trainings").iterdir()]
    assert not [name for name in kept if name.endswith(state_id(""))]
    assert sum("-epoch-" in name for name in kept) == 5 + 2


def test_a_finished_race_needs_no_worker(raced: tuple[Path, Racers, tuple[TrialRecord, ...]]) -> None:
    """A race is repeated from its records, even if the cache is empty, with the same result."""
    folder, _, records = raced
    cache = Cache(folder / "cache")
    assert race(folder, nobody) == records
    cache.root.rename(folder / "moved")
    try:
        assert race(folder, nobody) == records
    finally:
        (folder / "moved").rename(cache.root)


@pytest.mark.parametrize("moment", range(0, 10, 2))
def test_an_interrupted_race_has_the_same_result(
    raced: tuple[Path, Racers, tuple[TrialRecord, ...]], tmp_path: Path, moment: int
) -> None:
    """A race that was killed before any of its tasks ends with the records of an uninterrupted one."""
    with pytest.raises(Killed):
        race(tmp_path, Racers(killed_before=moment))
    workers = Racers()
    assert essence(race(tmp_path, workers)) == essence(raced[2])
    assert len(workers.tasks) == len(raced[1].tasks) - moment


def test_a_race_without_its_states_trains_again(
    raced: tuple[Path, Racers, tuple[TrialRecord, ...]], tmp_path: Path
) -> None:
    """If the states of optimizers were lost, trainings start from nothing, and the race has the same result."""
    with pytest.raises(Killed):
        race(tmp_path, Racers(killed_before=6))
    cache = Cache(tmp_path / "cache")
    lost = list((cache.root / "trainings").glob(f"*{state_id('')}"))
    for path in lost:
        cache.forget(path.name)
    workers = Racers()
    assert essence(race(tmp_path, workers)) == essence(raced[2])
    assert lost
    assert not any(task.resume for task in workers.tasks if task.until == 6)


def test_a_run_without_race_finishes_what_stopped(
    raced: tuple[Path, Racers, tuple[TrialRecord, ...]], tmp_path: Path
) -> None:
    """A run without `--race` in the directory of a race trains the stopped trials to their ends, and no others."""
    race(tmp_path, Racers())
    workers = Racers()
    records = sweep(tmp_path, workers).run_trials(RUN.plan.trials, Split.MAIN, "training")
    assert {_named(task) for task in workers.tasks} == {"poor", "forgets"}
    assert {record.status for record in records} == {Status.SUCCEEDED, Status.DIVERGED}
    assert len(raced[2]) == len(records)


def test_without_time_nothing_is_decided(tmp_path: Path) -> None:
    """If the time limit ends before all trials have reached a look, no trial stops; the next session goes on."""
    now = [0.0]

    class Slow(Racers):
        def __call__(self, job: Job, emit: Callable[[Event], None]) -> None:
            super().__call__(replace(job, tasks=job.tasks), lambda event: (now.__setitem__(0, now[0] + 1), emit(event)))

    budget = Budget(20.0, {trial.id: 1.0 for trial in RUN.plan.trials}, clock=lambda: now[0], started=0.0)
    limited = replace(sweep(tmp_path, Slow()), budget=budget)
    records = run_race(limited, RUN, RUN.plan.trials, score, "training")
    assert budget.spent
    assert not [record for record in records if record.status is Status.STOPPED]
    assert set(ended(race(tmp_path, Racers()))) == set(SHORT.values())


def test_with_a_time_limit_leaders_go_on_first(tmp_path: Path) -> None:
    """With a time limit, the variant with the most passes at a look is trained to its end before the others."""
    order = [VARIANTS[n] for n in (2, 1, 0)]
    run = manifest(SUITE, order, (0,))
    workers = Racers()
    budget = Budget(1e6, {trial.id: 1.0 for trial in run.plan.trials})
    run_race(replace(sweep(tmp_path, workers), budget=budget), run, run.plan.trials, score, "training")
    assert [_named(task) for task in workers.tasks if task.settings] == [
        *("poor", "fine", "good"), *("good", "fine"), *("good", "fine")
    ]  # fmt: skip


def test_a_race_says_who_leaves(tmp_path: Path) -> None:
    """After each look, notices say how many variants stop, and why each of them does."""
    events: list[Event] = []
    run_race(replace(sweep(tmp_path, Racers()), listener=EventList(events)), RUN, RUN.plan.trials, score, "training")
    told = [event.message for event in events if event.kind is EventKind.NOTICED]
    assert told[0] == "Look 1 of 2: 3 of 5 variants stop."
    assert told[-1] == "Look 2 of 2: no variant stops."
    assert [text.split(" stops: ")[0] for text in told[1:-1]] == ["lr=0.0003", "lr=0.0004", "lr=0.0005"]
    planned = [event.message for event in events if event.kind is EventKind.PLANNED]
    assert planned == ["training, up to look 1 of 2", "training, up to look 2 of 2", "training, to the end"]


def test_a_race_of_one_variant_is_a_run(tmp_path: Path) -> None:
    """With one variant there is no look: it is trained to its end, and a notice says that --race has no effect."""
    events: list[Event] = []
    one = manifest(SUITE, VARIANTS[:1], (0,))
    listening = replace(sweep(tmp_path, Racers()), listener=EventList(events))
    records = run_race(listening, one, one.plan.trials, score, "training")
    assert [record.status for record in records] == [Status.SUCCEEDED] * 2
    assert events[0].message == "--race has no effect: the grid has only one variant."


# --- several seeds -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raced_seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Racers, tuple[TrialRecord, ...]]:
    folder, workers = tmp_path_factory.mktemp("race"), Racers()
    return folder, workers, race(folder, workers, SEEDS)


def test_variants_leave_after_their_first_seed(raced_seeds: tuple[Path, Racers, tuple[TrialRecord, ...]]) -> None:
    """With several seeds, variants are trained to their ends under one; what leaves is not trained under the others."""
    _, workers, records = raced_seeds
    how = ended(records)
    assert (how["good"], how["fine"]) == ("succeeded: ", "succeeded: ")
    worse = "lr=0.0001 is better: they pass 38 and 8 of 40 generalise cases"
    assert how["poor"] == f"stopped: stopped after 1 of 3 seeds: {worse}"
    assert how["forgets"].startswith("stopped: stopped after 1 of 3 seeds: loses more than ")
    assert how["diverges"] == "stopped: stopped after 1 of 3 seeds: seed 0: diverged: diverged"
    assert not any(task.until or task.resume for task in workers.tasks)
    trained = [_named(task) for task in workers.tasks if task.settings]
    assert {name: trained.count(name) for name in SHORT.values()} == {
        "good": 3, "fine": 3, "poor": 1, "forgets": 1, "diverges": 1
    }  # fmt: skip
    assert all(record.answers for record in records if record.status is Status.SUCCEEDED)


def test_a_variant_that_left_has_no_pass_rates(raced_seeds: tuple[Path, Racers, tuple[TrialRecord, ...]]) -> None:
    """A variant that left after its first seed has no pass rates, and the report says what was not trained."""
    records = [
        replace(r, training=replace(r.training, supervised_tokens=9)) if r.training else r for r in raced_seeds[2]
    ]
    results = aggregate.choose(SEEDS, records, score, "")
    rates = {SHORT[each.id]: variant.rates for each, variant in zip(VARIANTS, results.variants, strict=True)}
    assert rates["good"]
    assert not any(rates[name] for name in ("poor", "forgets", "diverges"))
    assert results.choice.variant in ("lr=0.0001", "lr=0.0002")
    said = report.race(results)
    assert said.startswith("Race: 3 of 5 variants stopped")
    assert "This saved 40% of the grid's training" in said


@pytest.mark.parametrize("moment", range(0, 12, 3))
def test_an_interrupted_race_of_seeds_has_the_same_result(
    raced_seeds: tuple[Path, Racers, tuple[TrialRecord, ...]], tmp_path: Path, moment: int
) -> None:
    """A race of several seeds that was killed ends with the records of an uninterrupted one, and trains nothing twice.

    From its records alone, it is repeated without any worker.
    """
    with pytest.raises(Killed):
        race(tmp_path, Racers(killed_before=moment), SEEDS)
    workers = Racers()
    records = race(tmp_path, workers, SEEDS)
    assert essence(records) == essence(raced_seeds[2])
    assert len(workers.tasks) == len(raced_seeds[1].tasks) - moment
    (tmp_path / "cache").rename(tmp_path / "moved")
    assert essence(race(tmp_path, nobody, SEEDS)) == essence(records)


def test_a_run_without_race_trains_the_other_seeds(
    raced_seeds: tuple[Path, Racers, tuple[TrialRecord, ...]], tmp_path: Path
) -> None:
    """A run without `--race` in the directory of a race of seeds trains only what was not trained."""
    race(tmp_path, Racers(), SEEDS)
    workers = Racers()
    records = sweep(tmp_path, workers).run_trials(SEEDS.plan.trials, Split.MAIN, "training")
    assert sorted(map(_named, workers.tasks)) == sorted(["poor", "forgets", "diverges"] * 2)
    assert len(records) == len(raced_seeds[2])


def test_a_pass_has_trials_of_one_stage(tmp_path: Path) -> None:
    """The passes of a race are composed of the trials that are due, so that trials of all variants share passes."""
    passes: list[int] = []
    fused = replace(SETUP, engine=Engine.FUSED)

    class Counting(Racers):
        def __call__(self, job: Job, emit: Callable[[Event], None]) -> None:
            passes.append(sum(task.settings is not None for task in job.tasks))
            super().__call__(job, emit)

    made = replace(sweep(tmp_path, Counting()), setup=fused)
    run_race(made, SEEDS, SEEDS.plan.trials, score, "training")
    assert [each for each in passes if each] == [5, 4]
