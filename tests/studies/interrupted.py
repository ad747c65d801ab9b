"""Kills commands at random moments until they complete, and compares the results with those of undisturbed commands.

    python -m tests.studies.interrupted [--kills 100] [--seed 1] [--only WORD] [--output FILE [--more]]

Each kill is a SIGKILL, of the command or of its worker; then the same command is given again. `TARGETS` lists the
commands. They are forked from a process that has imported the libraries, so that kills hit their work. Exits with 1 if
a result differs, if a file existed under its final name before it was complete, or if a worker outlived its parent by
5 s.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.core.hashing import digest, file_digest
from tests.support.interruptions import Command, Kill, kills_until_complete
from tests.support.preloaded import Program, preload
from tests.support.small_suite import RUN, SHORT, findings, small_suite

Found = Mapping[str, Any]
"""What must be equal to the results of an undisturbed command, by name. Empty: there is no result yet."""
MERGED = RUN / "exports" / "lr-0.01-seed0-nf4-exact-float16"
FILE_SIZE = 2_000_000
"""Size of a file of the export in several files, in bytes."""


@dataclass(frozen=True)
class Target:
    """A command that is killed: how it is prepared in a new folder, and what it leaves there."""

    name: str
    share: float
    """The share of the kills that the command gets."""
    prepare: Callable[[Path, Path], Callable[[], Command]]
    """Prepares a folder, given also the folder of finished runs; returns a function that is called for each attempt."""
    found: Callable[[Path], Found]
    at_once: bool = False
    """Whether the result appears under its final name at once."""


# --- runs --------------------------------------------------------------------------------------------------------


def short_suite(folder: Path) -> None:
    """Write a suite that trains and answers in few seconds."""
    small_suite(folder, grid=SHORT, tokens=6)


def run_command(folder: Path, engine: str, *more: str, confirm: int = 0) -> Command:
    words = ("run", "small", "--profile", "cpu", "--engine", engine, "--confirm-seeds", str(confirm))
    return Command((*words, *more), folder)


def prepare_run(place: Path, _finished: Path, *, engine: str, confirm: int) -> Callable[[], Command]:
    short_suite(place)
    return lambda: run_command(place, engine, confirm=confirm)


def prepare_sync(place: Path, _finished: Path) -> Callable[[], Command]:
    """Prepare a run that continues after every second attempt on a new machine, which has only the suite."""
    attempts = 0

    def command() -> Command:
        nonlocal attempts
        if attempts % 2 == 0:
            shutil.rmtree(place / "here", ignore_errors=True)
            short_suite(place / "here")
        attempts += 1
        return run_command(place / "here", "fused", "--sync", "../drive")

    return command


def run_results(place: Path) -> Found:
    """Return all results of a run except times, and the digest of every adapter in the cache."""
    if not (place / RUN / "results.json").is_file():
        return {}
    adapters = sorted((place / "reports" / "cache" / "trainings").glob("*/adapter_model.safetensors"))
    return findings(place) | {"adapters": {path.parent.name: file_digest(path) for path in adapters}}


# --- exports and baselines ---------------------------------------------------------------------------------------


def prepare_finished(
    place: Path, finished: Path, *, words: Sequence[str], program: Program | None = None
) -> Callable[[], Command]:
    shutil.copytree(finished, place, dirs_exist_ok=True)
    return lambda: Command(words, place, program)


def files_in(place: Path, *, folder: Path) -> Found:
    """Return the digest of every file in a folder, without the temporary files that a killed process leaves."""
    return {path.name: file_digest(path) for path in sorted((place / folder).glob("[!.]*"))}


def export_in_files(words: Sequence[str]) -> int:
    """Export the run `words[0]` like `harness export RUN lr=0.01 --to merged`, but in files of 2 MB."""
    from harness.engine.merging import merge
    from harness.export.source import find
    from harness.export.targets.merged import MergeRequest, to_merged
    from harness.storage.cache import Cache
    from harness.storage.locations import CACHE
    from harness.storage.runs import find_run

    store, cache = find_run(Path(words[0])), Cache(CACHE)
    with store.locked(), cache.in_use(store.root):
        source = find(store, "lr=0.01", None, cache)
        request = MergeRequest(shard_size=FILE_SIZE)
        to_merged(source, store.root / "exports", request, merge=merge, show_progress=print)
    return 0


# --- two machines ------------------------------------------------------------------------------------------------


def two_machines(place: Path, kills: int, rng: random.Random, longest: float) -> tuple[list[Kill], list[Found]]:
    """Run the suite on two machines at the same time that share a folder of `--sync`, and kill both again and again.

    Returns the kills, and the results of both and of a third machine. The third only copies from the shared folder: a
    result is empty if it had to start a worker.
    """
    folders = [place / name for name in ("one", "two", "three")]
    for folder in folders:
        short_suite(folder)
    (place / "drive").mkdir()
    made: list[Kill] = []

    def machine(folder: Path, own: random.Random) -> None:
        command = partial(run_command, folder, "reference", "--sync", "../drive")
        made.extend(kills_until_complete(command, own, longest, enough=lambda: len(made) >= kills))

    with ThreadPoolExecutor(2) as both:
        for done in [both.submit(machine, folder, random.Random(rng.random())) for folder in folders[:2]]:
            done.result()
    run_command(folders[2], "reference", "--sync", "../drive").complete()
    repeated = any((folders[2] / RUN / "workers").glob("*"))
    return made, [*map(run_results, folders[:2]), {} if repeated else run_results(folders[2])]


# --- the study ---------------------------------------------------------------------------------------------------

_EXPORT = ("export", str(RUN), "lr=0.01", "--to", "merged")
TARGETS = (
    Target("run, reference engine", 0.16, partial(prepare_run, engine="reference", confirm=1), run_results),
    Target("run, fused engine", 0.16, partial(prepare_run, engine="fused", confirm=0), run_results),
    Target("run with --sync, on new machines", 0.12, prepare_sync, lambda place: run_results(place / "here")),
    Target(
        "export --to merged", 0.14, partial(prepare_finished, words=_EXPORT),
        partial(files_in, folder=MERGED), at_once=True,
    ),
    Target(
        "export in files of 2 MB", 0.1,
        partial(prepare_finished, words=[str(RUN)], program=export_in_files),
        partial(files_in, folder=MERGED), at_once=True,
    ),
    Target(
        "bless", 0.2,
        partial(prepare_finished, words=("bless", str(RUN), "--name", "good")),
        partial(files_in, folder=Path("reports/baselines")), at_once=True,
    ),
)  # fmt: skip
TWO_MACHINES = ("two machines with one --sync", 0.12)


class Tally:
    """Counts what happened to one kind of command."""

    def __init__(self, name: str, seconds: float, expected: Found) -> None:
        self.name, self.seconds, self.expected = name, seconds, expected
        self.kills: list[Kill] = []
        self.completed, self.early = 0, 0
        self.different: list[str] = []

    def compare(self, found: Found) -> None:
        """Compare the result of a command that completed."""
        self.completed += 1
        names = sorted({*self.expected, *found})
        self.different += [name for name in names if found.get(name) != self.expected.get(name)]

    @property
    def record(self) -> dict[str, Any]:
        return {
            "undisturbed_seconds": round(self.seconds, 1),
            "kills": len(self.kills),
            "victims": dict(Counter(kill.victim for kill in self.kills)),
            "moments": [kill.seconds for kill in self.kills],
            "completed": self.completed,
            "different": self.different,
            "named_before_complete": self.early,
            "workers_left": sum(kill.left for kill in self.kills),
        }


def measure(target: Target, scratch: Path, finished: Path, kills: int, rng: random.Random) -> Tally:
    """Kill one kind of command `kills` times, or a few times more, until the last attempt completes."""
    alone = scratch / "alone"
    alone.mkdir()
    seconds = target.prepare(alone, finished)().complete()
    tally = Tally(target.name, seconds, target.found(alone))
    while len(tally.kills) < kills:
        place = scratch / f"disturbed-{tally.completed}"
        place.mkdir()
        for kill in kills_until_complete(target.prepare(place, finished), rng, seconds):
            tally.kills.append(kill)
            shown = target.found(place) if target.at_once else {}
            tally.early += bool(shown) and shown != tally.expected
            print(f"{target.name}: killed the {kill.victim} after {kill.seconds} s", flush=True)
        tally.compare(target.found(place))
        shutil.rmtree(place)
    return tally


def measure_two_machines(scratch: Path, expected: Found, seconds: float, kills: int, rng: random.Random) -> Tally:
    """Kill two machines that share a folder."""
    tally = Tally(TWO_MACHINES[0], seconds, expected)
    while len(tally.kills) < kills:
        place = scratch / f"machines-{tally.completed}"
        place.mkdir()
        made, found = two_machines(place, kills - len(tally.kills), rng, 2 * seconds)
        tally.kills += made
        print(f"{tally.name}: {len(made)} kills", flush=True)
        for each in found:
            tally.compare(each)
        shutil.rmtree(place)
    return tally


def tallies(scratch: Path, kills: int, rng: random.Random, only: str) -> Iterator[Tally]:
    """Kill every kind of command whose name contains `only`."""
    finished = scratch / "finished"
    short_suite(finished)
    began = time.monotonic()
    run_command(finished, "reference").complete()
    seconds = time.monotonic() - began
    for target in TARGETS:
        if only in target.name:
            folder = scratch / digest(target.name)
            folder.mkdir()
            yield measure(target, folder, finished, max(1, round(kills * target.share)), rng)
            shutil.rmtree(folder)
    if only in TWO_MACHINES[0]:
        yield measure_two_machines(scratch, run_results(finished), seconds, round(kills * TWO_MACHINES[1]), rng)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of the name of a kind of command")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--more", action="store_true", help="keep the other kinds of commands in the record --output")
    given = parser.parse_args()
    preload()
    began = time.monotonic()
    records = json.loads(given.output.read_text(encoding="utf-8"))["commands"] if given.more else {}
    report = summary(given, records, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for tally in tallies(Path(folder), given.kills, random.Random(given.seed), given.only):
            records[tally.name] = tally.record
            print(tally.name, json.dumps(tally.record), flush=True)
            report = summary(given, records, (time.monotonic() - began) / 60)
            if given.output:
                given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(bool(report["different"] or report["named_before_complete"] or report["workers_left"]))


def summary(given: argparse.Namespace, records: Mapping[str, Any], minutes: float) -> dict[str, Any]:
    """Return the record of all kinds of commands that were killed."""
    return {
        "command": f"python -m tests.studies.interrupted --kills {given.kills} --seed {given.seed} --output FILE",
        "kills": sum(each["kills"] for each in records.values()),
        "different": sum(len(each["different"]) for each in records.values()),
        "named_before_complete": sum(each["named_before_complete"] for each in records.values()),
        "workers_left": sum(each["workers_left"] for each in records.values()),
        "minutes": round(minutes, 1),
        "commands": records,
    }


if __name__ == "__main__":
    sys.exit(main())
