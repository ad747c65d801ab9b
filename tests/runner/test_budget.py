"""Tests of the time budget: the order of trials, their expected times, and the time limit. The clock is a fake."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.engines import Engine
from harness.core.errors import UsageError
from harness.core.job import Event, EventKind, Job
from harness.core.measurement import Basis
from harness.core.names import BASE
from harness.core.run import TrialRecord
from harness.core.settings import Plan, Settings, Trial, Variant
from harness.core.suite import Split
from harness.core.training_outcome import Status
from harness.runner.budget import Budget, by_information, seconds
from harness.runner.composition import Composition
from harness.runner.executors.protocol import Executor
from harness.runner.sweep import Sweep
from harness.runner.trial_timer import TrialTimer
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.records import read_record
from harness.storage.runs import RunStore
from harness.suites.grids import load_plan, trial_id
from tests.support.fake_workers import SETUP
from tests.support.made_results import commit, machine
from tests.support.synthetic_runs import case
from tests.support.synthetic_runs import suite as made_suite

SUITES = Path(__file__).parents[2] / "suites"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Timed(Executor):
    """An executor that loads once, for `load` seconds. A trial takes `takes` seconds, or its time in `slow`."""

    clock: Clock
    takes: float
    load: float = 0.0
    slow: dict[str, float] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    workers: int = 0
    keeps_workers = True

    def run(self, job: Path, log: Path, *, until: float | None = None, **more: Any) -> Generator[Event]:
        self.workers += 1
        given = read_record(job, Job)
        self.clock.now += self.load if self.workers == 1 else 0
        yield Event(EventKind.LOADED)
        for task in given.tasks:
            yield Event(EventKind.STARTED, task.trial)
            end = self.clock.now + (0 if task.trial == BASE else self.slow.get(task.trial, self.takes))
            if until is not None and end > until:
                self.clock.now = until
                yield Event(EventKind.ENDED, status=Status.CANCELLED)
                return
            self.clock.now = end
            commit(given, task)
            self.done.append(task.trial)
            yield Event(EventKind.FINISHED, task.trial, Status.SUCCEEDED)
        yield Event(EventKind.ENDED, status=Status.SUCCEEDED)


@dataclass
class TimedPass(Timed):
    """An executor that trains all tasks of a job at once. Each task adds 40% of the time that it would take alone."""

    def run(self, job: Path, log: Path, *, until: float | None = None, **more: Any) -> Generator[Event]:
        self.workers += 1
        given = read_record(job, Job)
        self.clock.now += self.load if self.workers == 1 else 0
        yield Event(EventKind.LOADED)
        for task in given.tasks:
            yield Event(EventKind.STARTED, task.trial)
        count = sum(task.settings is not None for task in given.tasks)
        end = self.clock.now + self.takes * (0.6 + 0.4 * count)
        if until is not None and end > until:
            self.clock.now = until
            yield Event(EventKind.ENDED, status=Status.CANCELLED)
            return
        self.clock.now = end
        for task in given.tasks:
            commit(given, task)
            self.done.append(task.trial)
            yield Event(EventKind.FINISHED, task.trial, Status.SUCCEEDED)
        yield Event(EventKind.ENDED, status=Status.SUCCEEDED)


def trials(count: int) -> list[Trial]:
    rows = [Settings(learning_rate=n * 1e-4) for n in range(1, count + 1)]
    return [Trial(trial_id(s, 0), f"v{n}", s, 0) for n, s in enumerate(rows)]


def go(
    folder: Path, worker: Timed, wanted: Sequence[Trial], total: float, setup: Setup = SETUP
) -> tuple[dict[str, TrialRecord], Budget]:
    budget = Budget(total, {trial.id: 1.0 for trial in wanted}, worker.clock)
    store, rules = RunStore(folder / "run"), Composition(100)
    sweep = Sweep(setup, store, Cache(folder / "cache"), worker, budget=budget, composition=rules)
    return {record.trial: record for record in sweep.run_trials(wanted, Split.MAIN, "")}, budget


# --- durations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1.5 h", 5400), ("30 min", 1800), ("1H 5s", 3605)],
)
def test_durations_are_parsed(text: str, expected: float) -> None:
    """A duration may combine hours, minutes and seconds, with or without spaces."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "2", "h", "2 hours", "-2h", "2h?", "0s", "1d", "2h 3"])
def test_other_texts_are_refused(text: str) -> None:
    """A text that is not a duration is refused, and the error gives examples of durations."""
    with pytest.raises(UsageError, match="is not a duration") as caught:
        seconds(text)
    assert "1h30m" in caught.value.remedy


# --- order ----------------------------------------------------------------------------------------------


def plan(*rows: tuple[str, Settings], seeds: tuple[int, ...] = (0,)) -> Plan:
    variants = tuple(Variant(name, name, settings) for name, settings in rows)
    every = tuple(Trial(f"{v.name}-{seed}", v.id, v.settings, seed) for v in variants for seed in seeds)
    return Plan("test", variants, seeds, every)


def order(given: Plan, cost: dict[str, float] | None = None) -> list[str]:
    found = by_information(given, lambda variant: (cost or {}).get(variant.name, 1.0))
    return list(dict.fromkeys(trial.variant for trial in found))


def test_the_workshop_comes_first() -> None:
    """In the order of the grid `t4`, the row named `workshop` comes first, and every trial of the grid is included."""
    given = load_plan(SUITES / "workshop" / "grids" / "t4.yaml")
    names = {variant.id: variant.name for variant in given.variants}
    assert names[order(given)[0]] == "workshop"
    assert sorted(trial.id for trial in by_information(given, lambda _: 1.0)) == sorted(t.id for t in given.trials)


def test_new_axis_values_for_their_cost_come_early() -> None:
    """A variant with two new axis values runs before a variant with one new value, unless it takes much longer."""
    first, same, both = Settings(1e-4, rank=4), Settings(2e-4, rank=4), Settings(3e-4, rank=8)
    given = plan(("first", first), ("same", same), ("both", both))
    assert order(given) == ["first", "both", "same"]
    assert order(given, {"both": 10.0}) == ["first", "same", "both"]


def test_seeds_stay_together() -> None:
    """The trials of a variant, which differ in their seeds, run one after the other."""
    given = plan(("a", Settings(1e-4)), ("b", Settings(2e-4)), seeds=(0, 1, 2))
    found = [(trial.variant, trial.seed) for trial in by_information(given, lambda _: 1.0)]
    assert found == [(name, seed) for name in "ab" for seed in (0, 1, 2)]


# --- time limit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "takes"), [(100, 7), (600, 60), (3600, 97)])
def test_the_budget_is_kept(tmp_path: Path, total: float, takes: float) -> None:
    """All trials end within the time budget, and the unused time is too short for one more trial and the report."""
    worker = Timed(Clock(), takes, load=9)
    wanted = trials(45)
    began = worker.clock.now
    records, budget = go(tmp_path, worker, wanted, total)
    used = worker.clock.now - began
    assert budget.spent
    assert used <= total
    assert used + 1.1 * takes + 0.03 * total + 60 > total
    assert len(records) == len(worker.done) < len(wanted)


def test_a_trial_that_is_too_slow_is_stopped(tmp_path: Path) -> None:
    """A trial that is still running when the time is up is stopped without a record, and the next session runs it."""
    wanted = trials(3)
    worker = Timed(Clock(), 10, slow={wanted[1].id: 5000})
    records, budget = go(tmp_path, worker, wanted, 1000)
    assert worker.clock.now - 1000 <= 1000
    assert set(records) == {BASE, wanted[0].id}
    assert budget.spent
    again = Timed(Clock(), 10)
    records, budget = go(tmp_path, again, wanted, 1000)
    assert again.done == [wanted[1].id, wanted[2].id]
    assert not budget.spent
    assert [record.status for record in records.values()] == [Status.SUCCEEDED] * 4


@pytest.mark.parametrize(("total", "takes"), [(100, 7), (600, 60), (3600, 97)])
def test_fused_passes_keep_the_budget(tmp_path: Path, total: float, takes: float) -> None:
    """Trials that are trained together are put into groups that end within the time budget and use most of it."""
    worker = TimedPass(Clock(), takes, load=9)
    wanted = trials(100)
    began = worker.clock.now
    records, budget = go(tmp_path, worker, wanted, total, replace(SETUP, engine=Engine.FUSED))
    used = worker.clock.now - began
    assert budget.spent
    assert used <= total
    assert used > 0.6 * total
    assert len(records) == len(worker.done) > 1.4 * (total / takes) * 0.6
    assert worker.workers < 8


def test_a_diverged_trial_does_not_shorten_the_time_of_its_pass() -> None:
    """If one of the trials trained together diverges, their time is divided among the other trials."""
    clock = Clock()
    budget = Budget(10_000, dict.fromkeys("abcd", 1.0), clock)
    timer = TrialTimer(budget)
    for trial in "abcd":
        timer.observe(Event(EventKind.STARTED, trial))
    clock.now += 600
    timer.observe(Event(EventKind.FINISHED, "b", Status.DIVERGED))
    clock.now += 9
    for trial in "acd":
        timer.observe(Event(EventKind.FINISHED, trial, Status.SUCCEEDED))
    assert budget.expected("a") == pytest.approx(203)


def test_enough_time_changes_nothing(tmp_path: Path) -> None:
    """If there is enough time, all trials run, each once and in its order."""
    worker, wanted = Timed(Clock(), 10, load=5), trials(4)
    records, budget = go(tmp_path, worker, wanted, 10_000)
    assert (worker.done, budget.spent) == ([BASE, *(trial.id for trial in wanted)], False)
    assert set(records) == set(worker.done)
    assert budget.expected(trials(1)[0].id) == pytest.approx(10)


def test_remaining_time_follows_from_finished_trials() -> None:
    """A trial's expected time is its weight times the average seconds that finished trials took per unit of weight."""
    budget = Budget(100, {"a": 1.0, "b": 3.0, "c": 1.0}, Clock())
    assert budget.left(["b", "c"]) is None
    budget.learn("a", 20)
    assert budget.left(["b", "c"]) == pytest.approx(80)
    assert budget.allows("c")
    assert not Budget(100, {"a": 1.0}, Clock(), started=905.0).allows("a")


def test_records_of_earlier_sessions_give_expected_times(tmp_path: Path) -> None:
    """Until a trial of this session ends, expected times come from an earlier session's records on the same device."""
    wanted = trials(2)
    go(tmp_path, Timed(Clock(), 10), wanted[:1], 1000)
    _, budget = go(tmp_path, Timed(Clock(), 10), wanted, 8.0)
    assert budget.expected(wanted[1].id) == pytest.approx(
        7.0
    )  # the costs that the fake records for training and answering
    assert budget.spent


# --- predicted out of memory -----------------------------------------------------------------------------------------


def test_trials_predicted_to_run_out_of_memory_are_not_tried(tmp_path: Path) -> None:
    """A trial that is predicted to run out of memory is not run; its OUT_OF_MEMORY record has the basis PREDICTED."""
    wanted, worker = trials(3), Timed(Clock(), 1)
    predicted = {wanted[1].id: "predicted not to fit and not tried"}
    sweep = Sweep(SETUP, RunStore(tmp_path / "run"), Cache(tmp_path / "cache"), worker, predicted_oom=predicted)
    records = {record.trial: record for record in sweep.run_trials(wanted, Split.MAIN, "")}
    assert wanted[1].id not in worker.done
    left_out = records[wanted[1].id]
    assert (left_out.status, left_out.basis) == (Status.OUT_OF_MEMORY, Basis.PREDICTED)
    assert left_out.message == "predicted not to fit and not tried"
    assert records[wanted[0].id].basis is SETUP.machine.basis


def test_a_prediction_does_not_replace_a_result(tmp_path: Path) -> None:
    """A skipped trial runs in the next session without `--skip-hopeless`, and that result stays in later sessions."""
    wanted, worker = trials(1), Timed(Clock(), 1)
    predicted = {wanted[0].id: "predicted not to fit and not tried"}
    for left_out in (predicted, {}, predicted):
        sweep = Sweep(SETUP, RunStore(tmp_path / "run"), Cache(tmp_path / "cache"), worker, predicted_oom=left_out)
        record = sweep.run_trials(wanted, Split.MAIN, "")[1]
    assert (record.status, record.basis) == (Status.SUCCEEDED, Basis.MEASURED)
    assert worker.done == [BASE, wanted[0].id]


def test_the_report_marks_predictions() -> None:
    """The report page and the JSON summary say of an out-of-memory status that it was only predicted."""
    from harness import report
    from harness.analysis.aggregate import assemble
    from harness.report import json_summary
    from tests.support.synthetic_runs import manifest, record, score, variants

    rows = variants(2)
    asked = [case("one"), case("two", prompt="Two?")]
    run = manifest(made_suite(asked), rows, on=machine("cuda"))
    answers = {each.id: "good" for each in asked}
    lost = record(rows[1], {}, status=Status.OUT_OF_MEMORY, message="predicted not to fit and not tried")
    records = [record(None, answers), record(rows[0], answers), TrialRecord(**{**vars(lost), "basis": Basis.PREDICTED})]
    results = assemble(run, records, score, "2026-01-02T03:04:05+00:00")
    assert json_summary.overview(results, Path("run"))["statuses"][rows[1].name] == ["out of memory (predicted)"]
    page = report.render(results, now="2026-01-02T03:04:05+00:00")
    assert "predicted, not run" in page
    assert "predicted not to fit and not tried" in page
