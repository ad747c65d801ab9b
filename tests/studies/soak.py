"""A long run in miniature: many short trials, on a disk that fills, with a clock that jumps, killed again and again.

    python -m tests.studies.soak [--trials 400] [--seed 1] [--engine NAME] --output FILE.json --chart FILE.svg

Each engine trains half of the trials, once undisturbed and once disturbed; both take place at the same time, in
processes of their own. In the disturbed run, about every minute, the command or its worker is killed, the file system
is full for some seconds, and the wall clock jumps by up to a year; a command that has ended is given again. Every
second, the study samples memory and open files of the command and its worker.

Exits with 1 if the two runs of an engine have different results, if temporary files are left, if a command prints a
traceback, or if memory or open files grow by more than `GROWTH` from the second to the last quarter of the undisturbed
run. Needs root, to mount a small file system, and a C compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from harness.core.hashing import file_digest
from harness.core.outside_text import visible
from harness.report.charts.drawing import data
from tests.support.interruptions import Command, Running
from tests.support.moved_clock import MovedClock, moved_clock
from tests.support.preloaded import preload
from tests.support.small_disks import Disk, small_disk
from tests.support.small_suite import RUN, findings, small_suite

ENGINES = ("reference", "fused")
DISK = 1_400_000_000
"""Size of the file system. A run asks for 1 GB of room beyond the base model that it saves."""
GROWTH = {"memory": 0.05, "files": 0.0}
"""Allowed growth of the median, as a share."""
JUMP = 366 * 86_400
LONGEST = 6 * 3600.0
"""Seconds after which a command hangs. Hundreds of trials take hours on a machine that is busy with other work."""
WORKER = 200 << 20
"""Resident bytes of a worker at least. Helpers, such as the process that renders chat templates, have less."""
EVERY = 60.0
"""Seconds, on average, between two kills, two full disks and two jumps of the clock."""


@dataclass(frozen=True)
class Sample:
    """Memory and open files of the command (`parent`) or its worker at one moment."""

    minute: float
    trials: int
    """Number of trials that have a record."""
    process: str
    memory: float
    """Resident memory in MiB."""
    files: int


@dataclass
class Course:
    """The course of one run, from its first command until it is complete."""

    engine: str
    disturbed: bool
    minutes: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    exits: Counter[str] = field(default_factory=Counter)
    """Exit codes of the commands; `killed` for those that were killed."""
    troubles: Counter[str] = field(default_factory=Counter)
    """Kills, full disks and jumps of the clock."""
    tracebacks: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    """What commands printed that ended with 2, unless it is one error with a remedy."""


def suite(folder: Path, trials: int) -> None:
    """Write a suite whose trials are short: one step, and answers of three tokens."""
    grid = f"""\
seeds: {list(range(trials // 2))}
settings: {{epochs: 1, batch_size: 4, rank: 2, alpha: 4}}
axes: {{learning_rate: [1e-3, 1e-2]}}
"""
    small_suite(folder, grid=grid, tokens=3)


def command(folder: Path, engine: str) -> Command:
    return Command(("run", "small", "--profile", "cpu", "--engine", engine, "--confirm-seeds", "0"), folder)


@contextmanager
def sampled(running: Running, folder: Path, course: Course, began: float) -> Iterator[None]:
    """Sample the command and its worker every second while the block runs."""
    done = threading.Event()

    def follow() -> None:
        parent = psutil.Process(running.pid)
        while not done.wait(1.0):
            trials = finished(folder)
            for name, process in [("parent", parent), *(("worker", each) for each in _workers(running))]:
                try:
                    memory, files = process.memory_info().rss / 2**20, process.num_fds()
                except psutil.Error:
                    continue
                minute = (time.monotonic() - began) / 60
                course.samples.append(Sample(round(minute, 3), trials, name, round(memory, 1), files))

    with _beside(follow, done):
        yield


def _workers(running: Running) -> list[psutil.Process]:
    """Return the running workers that train, without helpers such as the process that draws charts."""
    found = []
    for process in running.workers():
        try:
            found += [process] if process.memory_info().rss > WORKER else []
        except psutil.Error:
            continue
    return found


@contextmanager
def troubled(disk: Disk, clock: MovedClock, rng: random.Random, course: Course) -> Iterator[None]:
    """Fill and empty the disk, and let the clock jump, while the block runs."""
    done = threading.Event()

    def trouble() -> None:
        while not done.wait(rng.uniform(0.5, 1.5) * EVERY):
            clock.jump(rng.randint(-JUMP, JUMP))
            course.troubles["clock jumps"] += 1
            if done.wait(rng.uniform(0.1, 0.5) * EVERY):
                break
            disk.fill(rng.choice([0, 4096, 100_000]))
            course.troubles["disk full"] += 1
            done.wait(rng.uniform(0.05, 0.3) * EVERY)
            disk.empty()
        disk.empty()

    with _beside(trouble, done):
        yield


@contextmanager
def _beside(work: Callable[[], None], done: threading.Event) -> Iterator[None]:
    """Do some work in a thread until the block ends, of which `done` tells it. Raise what the work raises."""
    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work)
        try:
            yield
        finally:
            done.set()
        working.result()


def undisturbed(folder: Path, engine: str) -> Course:
    """Run all trials without disturbing them."""
    course, began = Course(engine, disturbed=False), time.monotonic()
    with closing(command(folder, engine).start()) as running, sampled(running, folder, course, began):
        note_end(course, running)
    course.minutes = round((time.monotonic() - began) / 60, 2)
    return course


def disturbed(disk: Disk, engine: str, clock: MovedClock, rng: random.Random) -> Course:
    """Run the trials on the disk, and repeat the command until it completes.

    It or its worker is killed about `EVERY` seconds after it has finished its first trial.
    """
    course, began = Course(engine, disturbed=True), time.monotonic()
    with troubled(disk, clock, rng, course):
        while course.exits["0"] == 0:
            before = finished(disk.folder)
            with closing(command(disk.folder, engine).start()) as running, sampled(running, disk.folder, course, began):
                while running.poll() is None and finished(disk.folder) == before:
                    time.sleep(0.2)
                until = time.monotonic() + rng.uniform(0.5, 1.5) * EVERY
                while running.poll() is None and time.monotonic() < until:
                    time.sleep(0.05)
                if running.poll() is None:
                    victim = "worker" if _workers(running) and rng.random() < 0.5 else "parent"
                    running.kill(victim)
                    course.troubles[f"{victim} killed"] += 1
                note_end(course, running)
    course.minutes = round((time.monotonic() - began) / 60, 2)
    return course


def finished(folder: Path) -> int:
    """Return the number of trials that have a record."""
    return sum(1 for _ in (folder / RUN / "trials").glob("*/record.json"))


def note_end(course: Course, running: Running) -> None:
    """Wait for a command, and note how it ended."""
    code, printed = running.wait(LONGEST), running.printed()
    course.exits["killed" if code == -signal.SIGKILL else str(code)] += 1
    print(f"{course.engine}: ended with {code}: {printed.strip().splitlines()[-2:]}", flush=True)
    if "Traceback" in printed or code in (1, 70):
        course.tracebacks.append(visible(printed[-2000:]))
    if code == 2 and (printed.count("Error:") != 1 or not printed.split("Error:")[1].strip().count("\n")):
        course.unclear.append(visible(printed[-2000:]))


def result(folder: Path) -> dict[str, Any]:
    """Return what must be equal: all results except times, and the adapters byte for byte."""
    adapters = sorted((folder / "reports" / "cache" / "trainings").glob("*/adapter_model.safetensors"))
    return findings(folder) | {"adapters": {path.parent.name: file_digest(path) for path in adapters}}


def left_behind(folder: Path) -> list[str]:
    """Return the temporary files and folders in a folder, as kinds: a killed process cannot delete its own."""
    return [path.parent.name for path in folder.rglob(".partial-*")]


def growth(samples: Sequence[Sample], process: str, what: str) -> float | None:
    """Return the growth of a median from the second to the last quarter of the time, as a share.

    Only the time after the first trial counts, since a process that starts grows. None if there are too few samples.
    """
    own = [getattr(sample, what) for sample in samples if sample.process == process and sample.trials]
    quarter = len(own) // 4
    return float(median(own[-quarter:]) / median(own[quarter : 2 * quarter]) - 1) if quarter > 1 else None


def chart(engines: Mapping[str, Any]) -> str:
    """Draw memory and open files over time as SVG, from the record of each engine."""
    import altair as alt
    import vl_convert

    titles = {"memory": "memory, MiB", "files": "open files"}
    rows = [
        {
            "minute": sample.minute, "process": sample.process, "value": getattr(sample, what),
            "run": f"{engine}, {'disturbed' if course['disturbed'] else 'undisturbed'}", "what": title,
        }
        for engine, record in engines.items() for course in record["courses"]
        for sample in (Sample(*values) for values in course["samples"]) for what, title in titles.items()
    ]  # fmt: skip
    drawn = (
        alt.Chart(data(rows))
        .mark_point(size=6, filled=True)
        .encode(
            x=alt.X("minute:Q", title="minutes"),
            y=alt.Y("value:Q", title=None),
            color=alt.Color("process:N", title=None, scale=alt.Scale(range=["#1b6ca8", "#c8553d"])),
            column=alt.Column("run:N", title=None),
            row=alt.Row("what:N", title=None),
        )
        .properties(width=190, height=130)
        .resolve_scale(x="independent", y="independent")
    )
    text: str = vl_convert.vegalite_to_svg(drawn.to_json(validate=False), allowed_base_urls=[])
    return text


def thinned(samples: Sequence[Sample], most: int = 150) -> Sequence[Sample]:
    """Return at most `most` samples of each process, evenly chosen."""
    by_process: dict[str, list[Sample]] = {}
    for sample in samples:
        by_process.setdefault(sample.process, []).append(sample)
    return [sample for own in by_process.values() for sample in own[:: max(1, -(-len(own) // most))]]


def disturbed_runs(folder: Path, engines: Sequence[str], trials: int, seed: int) -> None:
    """Run the engines disturbed, in this process, whose clock is moved. Leave what was found in a file of each."""
    clock = MovedClock(folder / "clock")
    for engine in engines:
        clock.jump(0)
        with small_disk(folder / f"disk-{engine}", DISK) as disk:
            suite(disk.folder, trials)
            course = disturbed(disk, engine, clock, random.Random(f"{seed} {engine}"))
            found = (course, result(disk.folder), left_behind(disk.folder))
        (folder / "found").write_bytes(pickle.dumps(found))
        (folder / "found").rename(folder / f"disturbed-{engine}")  # complete under this name


def engine_record(engine: str, folder: Path, beside: subprocess.Popen[bytes], trials: int) -> dict[str, Any]:
    """Run an engine undisturbed, wait for the process that runs it disturbed, and compare."""
    alone, other = folder / engine, folder / f"disturbed-{engine}"
    suite(alone, trials)
    first = undisturbed(alone, engine)
    expected = result(alone)
    while not other.exists():
        if beside.poll():
            raise RuntimeError(f"the disturbed run ended with {beside.returncode}")
        time.sleep(1)
    second, found, left = pickle.loads(other.read_bytes())
    different = [name for name in expected if found[name] != expected[name]]
    grown = {
        f"{process} {what}": growth(first.samples, process, what)
        for process in ("parent", "worker") for what in GROWTH
    }  # fmt: skip
    return {
        "trials": trials,
        "answers": len(expected["samples"]),
        "different": different,
        "growth_from_second_to_last_quarter": grown,
        "temporary_files_left": dict(Counter(left)),
        "courses": [
            {
                "disturbed": course.disturbed, "minutes": course.minutes, "exits": dict(course.exits),
                "troubles": dict(course.troubles), "tracebacks": course.tracebacks, "unclear_errors": course.unclear,
                "samples": [list(asdict(sample).values()) for sample in thinned(course.samples)],
            }
            for course in (first, second)
        ],
    }  # fmt: skip


def sound(record: dict[str, Any]) -> bool:
    """Whether the run had equal results, left no files, printed no traceback and did not grow."""
    grown = record["growth_from_second_to_last_quarter"]
    flat = all(share is not None and share <= GROWTH[name.split()[1]] for name, share in grown.items())
    clear = not any(course["tracebacks"] or course["unclear_errors"] for course in record["courses"])
    return flat and clear and not record["different"] and not record["temporary_files_left"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=ENGINES, help="only this engine; the record keeps those that it has")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--chart", type=Path, required=True)
    parser.add_argument("--disturbed", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    engines, trials = ENGINES if given.engine is None else (given.engine,), given.trials // 2
    preload()
    if given.disturbed:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unmounts the disk
        disturbed_runs(given.disturbed, engines, trials, given.seed)
        return 0
    records = json.loads(given.output.read_text(encoding="utf-8"))["engines"] if given.output.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        again = [sys.executable, *sys.orig_argv[1:], "--disturbed", scratch]
        moved = moved_clock(Path(scratch) / "clock").environment
        with subprocess.Popen(again, env=os.environ | moved) as beside:
            try:
                for engine in engines:
                    records[engine] = engine_record(engine, Path(scratch), beside, trials)
                    write(given.output, given.chart, given.trials, records)
            finally:
                beside.terminate()
                beside.wait()
    return int(not all(map(sound, records.values())))


def write(output: Path, picture: Path, trials: int, records: Mapping[str, Any]) -> None:
    """Write the record of the engines that are done, and their chart."""
    report = {
        "command": f"python -m tests.studies.soak --trials {trials} --output FILE --chart FILE",
        "sample": "minute, trials with a record, process, resident memory in MiB, open files",
        "minutes": round(sum(course["minutes"] for each in records.values() for course in each["courses"]), 1),
        "engines": records,
    }
    output.write_text(json.dumps(report) + "\n", encoding="utf-8")
    picture.write_text(chart(records), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
