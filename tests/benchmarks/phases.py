"""Measures which share of a run is neither training nor answering, and what that share is spent on.

    python -m tests.benchmarks.phases [--suite DIR] [--grid NAME] [--model NAME] [--profile NAME] [--workers N]
                                      [--output FILE.json]

Runs the suite in an empty folder, with an empty cache. The time of the whole is that of the process, from its start to
the written report. Seconds of trainings and answers are those that the workers measured, in the records; with several
workers, a second counts by the share of the workers that are busy. The rest is divided by the times at which events
arrived. Prints its figures and asserts nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness.core import device_profiles
from harness.core.job import Event, EventKind
from harness.core.measurement import Phase
from harness.core.run import TrialRecord
from harness.hardware.environment import machine, stack_versions
from harness.runner import benchmark
from harness.runner.executors.choice import executor_for
from harness.runner.listeners.protocol import Listener
from harness.runner.request import Request
from tests.support.printed_figures import print_figures

SUITE = Path(__file__).resolve().parents[2] / "suites" / "workshop"
_WORK = (EventKind.STARTED, EventKind.STEP, EventKind.ANSWERING, EventKind.FINISHED)


@dataclass
class Clock(Listener):
    """Adds up the seconds between the events of each worker, by what the worker does meanwhile."""

    begun: float = field(default_factory=lambda: psutil.Process().create_time())
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    places: set[str] = field(default_factory=set)
    _last: dict[str, tuple[float, EventKind]] = field(default_factory=dict)
    """When the last event of each place arrived, and its kind."""
    _planned: float = 0.0
    _ended: float = 0.0

    def on_event(self, event: Event) -> None:
        now = time.time()
        if event.kind is EventKind.PLANNED:
            self.seconds["scoring and choosing" if self._ended else "preparing the run"] += now - (
                self._ended or self.begun
            )
            self._planned, self._last = now, {}
        elif event.kind in (EventKind.LOADING, EventKind.LOADED, EventKind.ENDED, *_WORK):
            self.places.add(event.place)
            before, kind = self._last.get(event.place, (self._planned, EventKind.PLANNED))
            if name := _between(kind, event.kind):
                self.seconds[name] += now - before
            self._last[event.place], self._ended = (now, event.kind), now

    def end(self) -> float:
        """Take note that the run has ended, and return its seconds."""
        now = time.time()
        self.seconds["scoring and writing the report"] = now - self._ended
        return now - self.begun


def _between(before: EventKind, now: EventKind) -> str:
    """Say what a worker does between two events, unless it trains or answers."""
    if now is EventKind.LOADING:
        return "starting workers"
    if now is EventKind.LOADED:
        return "loading the base model" if before is EventKind.LOADING else "checking a further job"
    if (before, now) == (EventKind.STARTED, EventKind.STARTED):
        return "probes"
    return "ending jobs" if now is EventKind.ENDED else ""


def trained(records: Iterable[TrialRecord]) -> float:
    """Return the seconds of all trainings; those of a pass count once."""
    passes, alone = dict[str, float](), 0.0
    for training in (record.training for record in records if record.training):
        together = training.together
        for each in (together, *together.earlier) if together else ():
            passes[each.id] = each.cost.seconds.value
        if together is None and training.cost:
            alone += training.cost.seconds.value
    return sum(passes.values()) + alone


def processor_seconds() -> float:
    """Return the seconds of all cores that this process and its workers, which have ended, have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def answered(records: Iterable[TrialRecord]) -> float:
    """Return the seconds of all answers, of which each record has its trial's share."""
    phases = (Phase.ANSWER_BEFORE, Phase.ANSWER_AFTER)
    return sum(cost.seconds.value for record in records for cost in record.costs if cost.phase in phases)


def figures(given: argparse.Namespace) -> dict[str, Any]:
    """Run the suite; return the seconds of its parts, and the share of neither training nor answering."""
    profile = device_profiles.PROFILES[given.profile]
    executor = executor_for("local", profile, workers=given.workers)
    request = Request(suite=given.suite.resolve(), grid=given.grid, model=given.model, profile=profile)
    clock = Clock()
    with _empty_folder():
        store, results = benchmark.run(request, executor, [clock])
        whole = clock.end()
        records, manifest = store.records(), store.manifest()
    rehearsal = manifest.rehearsal.answers if manifest.rehearsal else ()
    workers = len(clock.places)
    training = trained(records) / workers
    answering = (answered(records) + sum(c.seconds.value for r in rehearsal for c in r.costs)) / workers
    beside = whole - training - answering
    return {
        "command": "python -m tests.benchmarks.phases " + " ".join(sys.argv[1:]),
        "machine": machine(profile).device,
        "cores": len(os.sched_getaffinity(0)),
        "workers": workers,
        "versions": stack_versions(),
        "trials": len(records),
        "answers": sum(len(repeats) for record in records for repeats in record.answers.values()),
        "seconds": whole,
        "processor seconds": processor_seconds(),
        "training": training,
        "answering": answering,
        "beside": beside,
        "share beside": beside / whole,
        "beside, by events": {name: round(seconds, 2) for name, seconds in clock.seconds.items()},
        "choice": results.choice.variant,
        "confirmation": [
            {cost.phase.value: [cost.seconds.value, cost.peak().value] for cost in record.costs}
            for record in records
            if record.split.value == "confirm"
        ],
    }


@contextlib.contextmanager
def _empty_folder() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, default=SUITE)
    parser.add_argument("--grid", default="quick")
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--profile", default="auto", choices=device_profiles.PROFILES)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--output", type=Path, help="Also write the figures here.")
    given = parser.parse_args()
    if given.output:
        given.output = given.output.resolve()
    print_figures(figures(given), given.output)


if __name__ == "__main__":
    main()
