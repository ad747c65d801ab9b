"""The tests that every executor passes: how trials end, on one place and on two, and when the executor disappears."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.engines import Engine
from harness.core.job import Event, EventKind, Job
from harness.core.names import BASE
from harness.core.run import TrialRecord
from harness.core.settings import Trial
from harness.core.suite import Split
from harness.core.training_outcome import Status
from harness.runner.budget import Budget
from harness.runner.executors.protocol import Executor, Place
from harness.runner.listeners.protocol import Listener
from harness.runner.sweep import Sweep
from harness.storage.cache import Cache
from harness.storage.records import read_record
from harness.storage.runs import RunStore
from tests.support.acting_worker import Act, to
from tests.support.fake_workers import SETUP, EventList


@dataclass(frozen=True)
class Vanishing(Executor):
    """An executor whose machine disappears in the first `times` jobs that train, before they have a result."""

    within: Executor
    times: int
    gone: list[str] = field(default_factory=list)

    @property
    def places(self) -> tuple[Place, ...]:
        return self.within.places

    def run(self, job: Path, log: Path, **more: Any) -> Generator[Event]:
        tasks = read_record(job, Job).tasks
        if not any(task.train for task in tasks) or len(self.gone) == self.times:
            yield from self.within.run(job, log, **more)
            return
        self.gone.append(job.name)
        yield Event(EventKind.LOADED)
        yield Event(EventKind.STARTED, tasks[0].trial)
        yield Event(EventKind.ENDED, status=Status.FAILED, message="node 7 disappeared", lost=True)

    def close(self) -> None:
        self.within.close()


@dataclass(frozen=True)
class Interrupting(Listener):
    """Interrupts the run, like Ctrl-C, when this trial takes a step."""

    trial: str

    def on_event(self, event: Event) -> None:
        if event.kind is EventKind.STEP and event.trial == self.trial:
            raise KeyboardInterrupt


class ExecutorContract:
    """Subclasses have the fixtures `executor`, with one place, and `two`, with two. Workers are `acting_worker`s."""

    dies = True
    """Whether a worker of this executor can be killed without killing the tests."""
    streams = True
    """Whether events arrive while the worker works."""

    seconds = 6.0
    """A budget in which a worker can start, but that ends soon."""

    @pytest.fixture
    def executor(self) -> Executor:
        raise NotImplementedError

    @pytest.fixture
    def two(self) -> Executor:
        raise NotImplementedError

    def run(self, folder: Path, executor: Executor, *trials: Trial, **more: Any) -> dict[str, TrialRecord]:
        """Run trials; return their records by their acts, and that of the base by its name."""
        (folder / "meeting").mkdir(exist_ok=True)
        setup = replace(
            SETUP, model=replace(SETUP.model, path=str(folder / "meeting")), engine=more.pop("engine", Engine.REFERENCE)
        )
        sweep = Sweep(setup, RunStore(folder / "run"), Cache(folder / "cache"), executor, **more)
        acts = {trial.id: Act(trial.settings.learning_rate).name for trial in trials}
        found = sweep.run_trials(trials, Split.MAIN, "testing")
        return {f"{acts.get(one.trial, one.trial)}{one.seed or ''}": one for one in found}

    def test_a_trial_that_fails_leaves_the_others(self, executor: Executor, tmp_path: Path) -> None:
        """Trials finish, fail and run out of memory, each with its own status, message and log."""
        found = self.run(tmp_path, executor, to(Act.FAIL), to(Act.SHORT), to(Act.FINISH))
        assert {name: record.status for name, record in found.items()} == {
            BASE: Status.SUCCEEDED,
            "FAIL": Status.FAILED,
            "SHORT": Status.OUT_OF_MEMORY,
            "FINISH": Status.SUCCEEDED,
        }
        assert "RuntimeError: it broke" in found["FAIL"].message
        assert "RuntimeError: it broke" in (tmp_path / "run" / found["FAIL"].log).read_text(encoding="utf-8")
        assert found["SHORT"].message == "too large"
        assert set(found["FINISH"].answers) == {"one", "two"}

    def test_a_trial_that_takes_too_long_is_stopped(self, executor: Executor, tmp_path: Path) -> None:
        """A trial that exceeds the time limit is TIMED_OUT, even if its worker still sends events."""
        found = self.run(tmp_path, executor, to(Act.HANG), to(Act.FINISH), timeout=6.0)
        assert found["HANG"].status is Status.TIMED_OUT
        assert "stopped after 6 s" in found["HANG"].message
        assert found["FINISH"].status is Status.SUCCEEDED

    def test_a_killed_worker_fails_its_trial(self, executor: Executor, tmp_path: Path) -> None:
        """If a worker is killed, its trial fails, and a new worker runs the others."""
        if not self.dies:
            pytest.skip("a kill would end this process")
        found = self.run(tmp_path, executor, to(Act.DIE), to(Act.FINISH))
        assert (found["DIE"].status, found["FINISH"].status) == (Status.FAILED, Status.SUCCEEDED)
        assert "the worker was killed by SIGKILL" in found["DIE"].message

    def test_the_end_of_the_budget_cancels_a_trial(self, executor: Executor, tmp_path: Path) -> None:
        """A trial that is still running when the time of the run is up is stopped, and gets no record."""
        hanging = to(Act.HANG)
        budget = Budget(self.seconds, {hanging.id: 1.0})
        assert set(self.run(tmp_path, executor, hanging, budget=budget)) == {BASE}
        assert budget.spent

    def test_an_interrupted_run_resumes(self, executor: Executor, tmp_path: Path) -> None:
        """Ctrl-C stops the workers; the next run keeps what was finished and runs the rest."""
        if not self.streams:
            pytest.skip("the worker's events arrive when it has ended")
        hanging = to(Act.HANG)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            self.run(tmp_path, executor, to(Act.FINISH), hanging, listener=Interrupting(hanging.id))
        assert time.monotonic() - began < 60
        before = RunStore(tmp_path / "run").records()
        after = self.run(tmp_path, executor, to(Act.FINISH), to(Act.FINISH, 1))
        assert len(before) == 2
        assert all(after[each.trial if each.trial == BASE else "FINISH"] == each for each in before)

    def test_two_workers_run_at_once(self, two: Executor, tmp_path: Path) -> None:
        """With two places, two workers run at the same time, and events name their places."""
        events: list[Event] = []
        found = self.run(tmp_path, two, to(Act.MEET), to(Act.MEET, 1), listener=EventList(events))
        assert {record.status for record in found.values()} == {Status.SUCCEEDED}
        started = {event.trial: event.place for event in events if event.kind is EventKind.STARTED}
        assert {place.name for place in two.places} >= {started[to(Act.MEET).id], started[to(Act.MEET, 1).id]}
        assert len(set(started.values()) - {""}) == 2

    def test_a_disappeared_machine_fails_no_trial(self, executor: Executor, tmp_path: Path) -> None:
        """If a worker's machine disappears, its trials run again together; nobody is to blame."""
        events: list[Event] = []
        vanishing = Vanishing(executor, 2)
        trials = to(Act.FINISH), to(Act.FINISH, 1)
        found = self.run(tmp_path, vanishing, *trials, engine=Engine.FUSED, listener=EventList(events))
        assert {record.status for record in found.values()} == {Status.SUCCEEDED}
        assert len(vanishing.gone) == 2
        assert any("node 7 disappeared" in event.message for event in events if event.kind is EventKind.NOTICED)

    def test_a_machine_that_always_disappears_is_a_failure(self, executor: Executor, tmp_path: Path) -> None:
        """A trial whose machine disappears three times fails, and the run ends."""
        found = self.run(tmp_path, Vanishing(executor, 99), to(Act.FINISH))
        assert (found["FINISH"].status, found[BASE].status) == (Status.FAILED, Status.SUCCEEDED)
        assert "node 7 disappeared" in found["FINISH"].message
