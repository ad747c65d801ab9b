"""Kills a run at random moments until it completes, several times, and compares the results with an undisturbed run's.

    python -m tests.studies.interrupted_run --kills 20 --seed 1

SIGKILL goes to the run's process or to its worker; then the same command continues the run. Exits with 1 if a result
differs.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests.support.small_suite import LIMIT, findings, run, small_suite, start


def interrupted(folder: Path, rng: random.Random, longest: float, tell: Callable[[str], None]) -> Iterator[str]:
    """Start and kill the run in `folder` until it completes; for each kill, yield which process was killed."""
    while True:
        process, moment = start(folder), rng.uniform(0.2, longest)
        deadline = time.monotonic() + moment
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is None:
            victim = kill(process.pid, rng)
            tell(f"killed the {victim} after {moment:.1f} s")
            yield victim
        process.communicate(timeout=LIMIT)
        if process.returncode == 0:
            return


def kill(parent: int, rng: random.Random) -> str:
    """Kill either the worker, if there is one, or its parent, as the random number decides."""
    workers = psutil.Process(parent).children(recursive=True)
    if workers and rng.random() < 0.5:
        workers[0].send_signal(signal.SIGKILL)
        return "worker"
    psutil.Process(parent).send_signal(signal.SIGKILL)
    return "parent"


def undisturbed(folder: Path, tell: Callable[[str], None]) -> tuple[dict[str, Any], float]:
    """Return the results of a run that is not killed, and its seconds."""
    small_suite(folder)
    began = time.monotonic()
    code, _, error = run(folder)
    seconds = time.monotonic() - began
    if code:
        raise SystemExit(f"the undisturbed run ended with {code}:\n{error}")
    tell(f"undisturbed: {seconds:.1f} s")
    return findings(folder), seconds


def disturbed(
    folder: Path, kills: int, rng: random.Random, tell: Callable[[str], None], expected: dict[str, Any], longest: float
) -> int:
    """Complete interrupted runs until `kills` kills were made; count the runs whose results are not as expected."""
    done = different = number = 0
    while done < kills:
        number += 1
        place = folder / f"disturbed-{number}"
        small_suite(place)
        done += sum(1 for _ in interrupted(place, rng, longest, tell))
        found = findings(place)
        other = [what for what in expected if found[what] != expected[what]]
        different += bool(other)
        tell(f"run {number}: {f'DIFFERENT {other}' if other else 'the same'} after {done} kills in all")
    return different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    tell = partial(print, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        expected, seconds = undisturbed(Path(folder) / "alone", tell)
        different = disturbed(Path(folder), given.kills, random.Random(given.seed), tell, expected, seconds)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
