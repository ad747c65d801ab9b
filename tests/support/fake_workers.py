"""A suite, three trials and fake workers without a model, to test quickly how trials are run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from harness.core.engines import Engine
from harness.core.job import Event, EventKind, Job
from harness.core.model import ModelRef
from harness.core.names import BASE
from harness.core.run import TrialRecord
from harness.core.settings import Quantization, Settings, Trial
from harness.core.suite import Split
from harness.core.training_outcome import Status
from harness.runner.executors.inline import Inline
from harness.runner.listeners.protocol import Listener
from harness.runner.sweep import Sweep
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.runs import RunStore
from harness.suites.grids import trial_id
from tests.support.made_results import commit, machine
from tests.support.synthetic_runs import case
from tests.support.synthetic_runs import suite as made_suite

CASES = (case("one"), case("two", prompt="Two?"), case("kept", split=Split.CONFIRM, prompt="Kept?"))
SUITE = made_suite(CASES)
SETUP = Setup(SUITE, ModelRef("none", "none", "0123"), machine(), Engine.REFERENCE, {"torch": "2.13.0"})


def trial(rate: float, seed: int = 0, quantization: Quantization = Quantization.NF4) -> Trial:
    settings = Settings(learning_rate=rate, quantization=quantization)
    return Trial(trial_id(settings, seed), f"v{rate:g}", settings, seed)


A, B, C, D = trial(1e-4), trial(2e-4), trial(3e-4), trial(4e-4)
NAMES = {A.id: "a", B.id: "b", C.id: "c", D.id: "d", BASE: BASE}


@dataclass
class Workers:
    """A fake worker that stores a result in the cache for every task of a job.

    For the trials in `trouble` it does something else instead: it raises the given exception, emits the given event,
    or stores a training that ended with the given status.
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
        """For each task of all jobs: the name of the trial, whether it was trained, and the prompts that were asked."""
        return [
            (NAMES.get(task.trial, task.trial), task.train, [prompt.messages[-1].content for prompt in task.prompts])
            for job in self.jobs
            for task in job.tasks
        ]


@dataclass(frozen=True)
class EventList(Listener):
    """A listener that appends every event to `events`."""

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
    """Run the trials, check that the run directory has their records, and return these by the trials' names."""
    each = sweep(folder, workers, setup=setup, run=run)
    records = each.run_trials(trials, split, "testing")
    assert all(each.run.record(split, record.trial) == record for record in records)
    return {NAMES.get(record.trial, record.trial): record for record in records}


def nobody(job: Job, emit: Callable[[Event], None]) -> NoReturn:
    pytest.fail(f"a worker was started for {[task.trial for task in job.tasks]}")


def texts(record: TrialRecord) -> dict[str, list[str]]:
    """Return the answers to each case, one for each repeat."""
    return {name: [answer.text for answer in repeats] for name, repeats in record.answers.items()}


def ends(records: Mapping[str, TrialRecord]) -> dict[str, Status]:
    return {name: record.status for name, record in records.items()}
