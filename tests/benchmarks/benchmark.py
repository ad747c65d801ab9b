"""Measures how long `nox -s benchmark` takes with each engine on a CPU, and whether both engines agree.

    python -m tests.benchmarks.benchmark [--output FILE.json] [--grid NAME]

Runs one engine after the other, each in an empty folder. Prints its figures and asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.core import device_profiles
from harness.core.run_results import Results
from harness.hardware.environment import machine, stack_versions
from harness.storage.runs import find_run
from tests.support.printed_figures import print_figures

SUITE = Path(__file__).resolve().parents[2] / "suites" / "workshop"
ENGINES = ("reference", "fused")


def run(engine: str, grid: str, folder: Path) -> tuple[dict[str, float], Results]:
    """Run `harness run` in a new folder; return its wall time, its processor time and its results."""
    command = [
        sys.executable,
        "-m",
        "harness",
        "run",
        str(SUITE),
        "--profile",
        "cpu",
        "--engine",
        engine,
        "--grid",
        grid,
    ]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    package = str(SUITE.parents[1])
    subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": package}, check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    taken = {"wall seconds": time.perf_counter() - begun, "processor seconds": used}
    (found,) = (folder / "reports" / "runs").iterdir()
    return taken, find_run(found).results()


def rates(results: Results) -> dict[str, dict[str, str]]:
    rows = (results.base, *results.variants, *([results.confirmed] if results.confirmed else []))
    return {
        f"{row.name}{', confirmed' if row is results.confirmed else ''}": {
            role.value: f"{rate.passed}/{rate.total}" for role, rate in row.rates.items()
        }
        for row in rows
    }


def answers(results: Results) -> dict[tuple[str, int, str, int], str]:
    return {(s.variant, s.seed, s.case, s.repeat): s.answer.text for s in results.samples}


def same_by_variant(one: dict[Any, str], other: dict[Any, str]) -> dict[str, str]:
    same = {key: one[key] == other.get(key) for key in one}
    names = dict.fromkeys(key[0] for key in one)
    own = {name: [alike for key, alike in same.items() if key[0] == name] for name in names}
    return {name: f"{sum(found)}/{len(found)}" for name, found in own.items()}


def figures(grid: str) -> dict[str, Any]:
    times, found = {}, {}
    for engine in ENGINES:
        with tempfile.TemporaryDirectory() as folder:
            times[engine], found[engine] = run(engine, grid, Path(folder))
        print(f"{engine}: {times[engine]}", file=sys.stderr, flush=True)
    one, other = (found[engine] for engine in ENGINES)
    a, b = answers(one), answers(other)
    return {
        "command": f"python -m tests.benchmarks.benchmark --grid {grid}",
        "machine": machine(device_profiles.CPU).device,
        "cores": len(os.sched_getaffinity(0)),
        "versions": stack_versions(),
        "times": times,
        "times faster": {
            name: times["reference"][name] / times["fused"][name] for name in ("wall seconds", "processor seconds")
        },
        "choice": {engine: found[engine].choice.variant for engine in ENGINES},
        "rates": {engine: rates(found[engine]) for engine in ENGINES},
        "same rates": rates(one) == rates(other),
        "answers": len(a),
        "same answers": sum(a[key] == b.get(key) for key in a),
        "same answers by variant": same_by_variant(a, b),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="Also write the figures here.")
    parser.add_argument("--grid", default="quick")
    given = parser.parse_args()
    print_figures(figures(given.grid), given.output)


if __name__ == "__main__":
    main()
