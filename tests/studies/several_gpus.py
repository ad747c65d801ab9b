"""Measures how much faster two GPUs are than one, and checks that both give the same adapters and answers.

    python -m tests.studies.several_gpus [--output FILE.json] [--only quick|large] [--profile NAME]
    python -m tests.studies.several_gpus --workers

Two workloads: the workshop's grid `quick` under three seeds on the pocket model (three passes), and 32 trials of
Llama-2-7b's shape (four passes). Each runs on one GPU, on two, and on two again with one worker killed. Time counts
from the first loaded base to the last trial's end; loading is stated apart. Adapters and answers are compared by their
digests. With `--workers`, two workers on a CPU take the place of the GPUs, and the large workload becomes small. Exits
with 1 if results differ, or if two GPUs need more than 0.6 of one GPU's time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness.core import device_profiles
from harness.core.hashing import digest, file_digest
from harness.core.job import Event, EventKind
from harness.core.training_outcome import Status
from harness.hardware.environment import stack_versions
from harness.runner import benchmark
from harness.runner.executors.processes import Processes
from harness.runner.executors.protocol import Place
from harness.runner.listeners.protocol import Listener
from harness.runner.places import local_places
from harness.runner.request import Request
from harness.storage.cache import Cache
from tests.support.printed_figures import print_figures

SUITE = Path(__file__).resolve().parents[2] / "suites" / "workshop"
ROWS, CASES = 64, 16
MOST = 0.6
"""Largest allowed time of two GPUs, as a share of one GPU's time."""


@dataclass
class Watch(Listener):
    """Notes when bases were loaded and trials ended, and kills the worker of the last place once, if it is told to."""

    kill: bool
    loads: dict[str, float] = field(default_factory=dict)
    """Seconds until each place had loaded the base for the first time."""
    ended: list[float] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)
    began: float = field(default_factory=time.perf_counter)

    def on_event(self, event: Event) -> None:
        now = time.perf_counter() - self.began
        if event.kind is EventKind.LOADED:
            self.loads.setdefault(event.place, now)
        elif event.kind is EventKind.FINISHED and not event.trial.startswith("base"):
            self.ended.append(now)
            self.statuses.append(event.status.value if event.status else "")
            self.places.add(event.place)
        elif event.kind is EventKind.NOTICED:
            self.notices.append(event.message)
        elif event.kind is EventKind.STEP and event.done > 1 and self.kill and len(self.loads) > 1:
            self.kill = False
            workers = [p for p in psutil.Process().children(recursive=True) if "harness.engine.worker" in p.cmdline()]
            max(workers, key=lambda process: process.create_time()).kill()


def large_suite(folder: Path, *, small: bool) -> Path:
    """Write a suite with rows of about 100 tokens and a grid of 32 trials: four learning rates under eight seeds."""
    suite = folder / "large"
    (suite / "grids").mkdir(parents=True)
    cases = [{"prompt": f"Say {n}.", "assert": [{"type": "contains", "value": str(n)}]} for n in range(CASES)]
    head = {"objective": "learn", "decoding": {"max_new_tokens": 16}, "tests": cases}
    (suite / "suite.yaml").write_text(json.dumps(head), encoding="utf-8")
    rows = 8 if small else ROWS
    text = "river stone lamp quiet market " * (3 if small else 15)
    lines = (json.dumps({"prompt": f"Tell me story {n}.", "completion": f"{n} {text}"}) + "\n" for n in range(rows))
    (suite / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    settings = {"epochs": 1, "warmup": 0, "batch_size": 4, "rank": 4 if small else 16}
    grid = {"seeds": list(range(8)), "settings": settings, "axes": {"learning_rate": [1e-4, 2e-4, 3e-4, 4e-4]}}
    (suite / "grids" / "quick.yaml").write_text(json.dumps(grid), encoding="utf-8")
    return suite


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    folder.mkdir(parents=True)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def measured(
    folder: Path, bases: Path, places: tuple[Place, ...], kill: bool, **asked: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Run once, with the saved bases in `bases`; return the figures, and the digests of adapters and answers by key."""
    watch = Watch(kill)
    bases.mkdir(exist_ok=True)
    with inside(folder):
        cache = Path("reports/cache")
        cache.mkdir(parents=True)
        (cache / "bases").symlink_to(bases)
        benchmark.run(Request(confirm_seeds=0, **asked), Processes(at=places), [watch])
        found = digests(Cache(cache))
    first, last = min(watch.loads.values()), max(watch.ended)
    figures = {
        "places": len(places),
        "places with trials": len(watch.places),
        "seconds from the first loaded base": last - first,
        "seconds from the last loaded base": last - max(watch.loads.values()),
        "seconds until loaded": watch.loads,
        "trials": len(watch.ended),
        "not succeeded": sum(status != Status.SUCCEEDED.value for status in watch.statuses),
        "killed": any("start again" in notice for notice in watch.notices),
    }
    return figures, found


def digests(cache: Cache) -> dict[str, str]:
    adapters = {
        f"adapter {path.parent.name}": file_digest(path) for path in cache.root.glob("trainings/*/*.safetensors")
    }
    answers = {
        f"answer {path.name} {answer.key}": digest(answer)
        for path in cache.root.glob("answers/*")
        for made in cache.answers(path.name)
        for answer in made.answers
    }
    return adapters | answers


def compared(name: str, folder: Path, places: tuple[Place, ...], **asked: Any) -> dict[str, Any]:
    """Run a workload on one place, on two, and on two with a killed worker; print and return the figures."""
    bases = folder / "bases"
    alone = (Place(variables=places[0].variables, threads=0),)
    figures: dict[str, Any] = {}
    results = {}
    for label, where, kill in (("one", alone, False), ("two", places, False), ("killed", places, True)):
        figures[label], results[label] = measured(folder / f"{name}-{label}", bases, where, kill, **asked)
        print(f"{name}, {label}: {json.dumps(figures[label])}", file=sys.stderr, flush=True)
    one, two = (figures[label]["seconds from the first loaded base"] for label in ("one", "two"))
    adapters = sum(key.startswith("adapter") for key in results["one"])
    return figures | {
        "share of one GPU's time": two / one,
        "adapters": adapters,
        "answers": len(results["one"]) - adapters,
        "same with two": results["one"] == results["two"],
        "same with a killed worker": results["one"] == results["killed"],
    }


def figures(only: str | None, profile: device_profiles.Profile, places: tuple[Place, ...]) -> dict[str, Any]:
    cpu = profile is device_profiles.CPU
    found: dict[str, Any] = {"versions": stack_versions(), "profile": profile.name}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if only != "quick":
            suite = large_suite(folder, small=cpu)
            model = "pocket" if cpu else "shape:llama-2-7b"
            found["large"] = compared("large", folder, places, suite=suite, model=model, profile=profile)
        if only != "large":
            found["quick"] = compared("quick", folder, places, suite=SUITE, seeds=(0, 1, 2), profile=profile)
    return found


def holds(found: dict[str, Any], *, timed: bool) -> bool:
    rows = [found[name] for name in ("large", "quick") if name in found]
    same = all(row["same with two"] and row["same with a killed worker"] and row["killed"]["killed"] for row in rows)
    return same and not (timed and any(row["share of one GPU's time"] > MOST for row in rows))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="Also write the figures here.")
    parser.add_argument("--only", choices=("quick", "large"))
    parser.add_argument("--profile", choices=list(device_profiles.PROFILES), default="auto")
    parser.add_argument("--workers", action="store_true", help="Use two workers on a CPU.")
    given = parser.parse_args(arguments)
    profile = device_profiles.CPU if given.workers else device_profiles.PROFILES[given.profile]
    places = local_places(profile, workers=2) if given.workers else local_places(profile, chosen="2")
    found = figures(given.only, profile, places)
    print_figures(found, given.output)
    return 0 if holds(found, timed=not given.workers) else 1


if __name__ == "__main__":
    sys.exit(main())
