"""Measures what the driver costs with many workers, which only sleep: processor time, memory, and the time to the end.

    python -m tests.studies.many_workers --output FILE.json

Runs 1,000 and 10,000 trials on 100 workers, each trial a pass of its own that sleeps for a known time, and then 1,000
trials in passes of 8 and of 5. The driver is this process, whose processor time is counted; workers are threads without
a process, so that nothing else is measured. A worker stores a small result after each trial. With 100 workers on one
disk, this takes time, too; the best possible time is given without it ("by the known times") and with it. Asserts
nothing, and takes 20 minutes.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.core.engines import Engine
from harness.core.job import Event, EventKind, Job
from harness.core.settings import Settings, Trial
from harness.core.suite import Split
from harness.core.training_outcome import Status
from harness.runner.composition import Composition
from harness.runner.executors.protocol import Executor, Place
from harness.runner.sweep import Sweep
from harness.storage.cache import Cache
from harness.storage.records import read_record
from harness.storage.runs import RunStore
from harness.suites.grids import trial_id
from tests.support.fake_workers import SETUP
from tests.support.made_results import commit


@dataclass(frozen=True)
class Sleeping(Executor):
    """An executor whose workers sleep for each trial's time, and then store a small result."""

    count: int
    seconds: Mapping[str, float]
    took: dict[str, float] = field(default_factory=dict)
    """Seconds of each trial, with those in which its result was stored."""

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(Place(f"worker {number}") for number in range(1, self.count + 1))

    def run(self, job: Path, log: Path, **more: Any) -> Generator[Event]:
        given = read_record(job, Job)
        yield Event(EventKind.LOADED)
        for task in given.tasks:
            yield Event(EventKind.STARTED, task.trial)
            began = time.monotonic()
            time.sleep(self.seconds.get(task.trial, 0.0))
            commit(given, task)
            self.took[task.trial] = time.monotonic() - began
            yield Event(EventKind.FINISHED, task.trial, Status.SUCCEEDED)
        yield Event(EventKind.ENDED, status=Status.SUCCEEDED)


def best_makespan(passes: Sequence[float], workers: int) -> float:
    """Return the time of dealing passes of these lengths longest first, if everything else took no time."""
    busy = [0.0] * workers
    for each in sorted(passes, reverse=True):
        heapq.heapreplace(busy, busy[0] + each)
    return max(busy)


def measured(count: int, workers: int, seconds: float, *, width: int = 1) -> dict[str, float]:
    """Run `count` trials that sleep between half of `seconds` and one and a half times as long.

    A pass has at most `width` trials and sleeps for the sum of their times.
    """
    rng = random.Random(count)
    rows = [Settings(learning_rate=1e-7 * (n + 1)) for n in range(count)]
    trials = [Trial(trial_id(settings, 0), "v", settings, 0) for settings in rows]
    times = {trial.id: seconds * rng.uniform(0.5, 1.5) for trial in trials}
    engine, composition = Engine.FUSED if width > 1 else Engine.REFERENCE, Composition(width, weights=times)
    executor = Sleeping(workers, times)
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        run, cache = RunStore(Path(folder) / "run"), Cache(Path(folder) / "cache")
        sweep = Sweep(replace(SETUP, engine=engine), run, cache, executor, composition=composition)
        began, used = time.monotonic(), time.process_time()
        records = sweep.run_trials(trials, Split.MAIN, "sleeping")
        took, used = time.monotonic() - began, time.process_time() - used
    passes = [[trial.id for trial in some] for some in composition.passes(engine, trials)]
    best, stored = (
        best_makespan([sum(known[trial] for trial in some) for some in passes], workers)
        for known in (times, executor.took)
    )
    return {
        "trials": len(records) - 1,
        "passes": len(passes),
        "workers": workers,
        "driver ms of processor time per trial, with the workers' share": 1000 * used / count,
        "seconds": took,
        "best possible seconds by the known times": best,
        "times the best": took / best,
        "best possible seconds, with storing": stored,
        "times the best, with storing": took / stored,
        "best possible seconds, if each trial were a pass": best_makespan(list(times.values()), workers),
        "peak MB of the process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="Also write the figures here.")
    given = parser.parse_args()
    found = [
        measured(1000, 100, 30.0),
        measured(1000, 100, 5.0, width=8),
        measured(1000, 100, 5.0, width=5),
        measured(10_000, 100, 5.0),
    ]
    text = json.dumps(found, indent=1)
    print(text)
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
