"""Measures how long `harness gate` takes on a large run: 24 variants, 200 cases, 3 seeds, and a baseline of that size.

    python -m tests.benchmarks.gate [--output FILE]

Times each command in a process of its own, including the start of the interpreter. Processor time is measured beside
wall time, because other work may slow the machine. Prints its figures as JSON; asserts only that no training library
was imported.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.analysis.regression.bless import bless
from harness.core.run_results import Results
from harness.core.suite import Case, Role
from harness.storage.runs import RunStore
from tests.support import synthetic_runs
from tests.support.printed_figures import print_figures

VARIANTS, CASES, SEEDS, ROUNDS = 24, 200, (0, 1, 2), 5
HEAVY = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "evaluate", "pandas", "altair")
PROBE = """
import sys
from harness.cli import main
code = main(sys.argv[1:])
print([name for name in {heavy!r} if name in sys.modules])
sys.exit(code)
"""


def results(skill: float, seed: int) -> Results:
    """Return a run in which each answer of each variant passes with the given probability."""
    rng = random.Random(seed)
    roles = (Role.LEARN, Role.GENERALISE, Role.RETAIN, Role.AVOID)
    cases: list[Case] = [synthetic_runs.case(f"c{number:03}", roles[number % 4]) for number in range(CASES)]
    rows = synthetic_runs.variants(VARIANTS)
    base = {c.id: "good" if c.role in (Role.RETAIN, Role.AVOID) else "bad" for c in cases}
    records = [synthetic_runs.record(None, base)]
    for row in rows:
        for trained in SEEDS:
            texts = {c.id: f"{'good' if rng.random() < skill else 'bad'}, {rng.random()}" for c in cases}
            records.append(synthetic_runs.record(row, texts, seed=trained, trained=synthetic_runs.training()))
    return synthetic_runs.assemble(
        synthetic_runs.manifest(synthetic_runs.suite(cases), rows, SEEDS), records, synthetic_runs.score, "2026-01-02"
    )


def stored(found: Results, folder: Path) -> RunStore:
    store = RunStore(folder)
    store.write_manifest(found.run)
    store.write_results(found, [], lambda: "")
    return store


def once(run: Path, baseline: Path) -> dict[str, Any]:
    """Run a command once; return its seconds, its exit code and the training libraries that it imported."""
    command = [sys.executable, "-c", PROBE.format(heavy=HEAVY), "gate", str(run), "--baseline", str(baseline)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "processor": processor, "code": done.returncode, "heavy": done.stdout.splitlines()[-1]}


def figures() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        baseline = bless(stored(results(0.9, 0), Path(folder) / "before"), "before", Path(folder))
        run = stored(results(0.9, 1), Path(folder) / "after")
        rounds = [once(run.root, baseline) for _ in range(ROUNDS)]
        size = baseline.stat().st_size
    walls = [made["wall"] for made in rounds]
    assert {made["heavy"] for made in rounds} == {"[]"}, rounds
    return {
        "variants": VARIANTS, "cases": CASES, "seeds": len(SEEDS), "exit_code": rounds[0]["code"],
        "baseline_bytes": size,
        "wall_seconds": {"least": _rounded(min(walls)), "most": _rounded(max(walls))},
        "processor_seconds": {"least": _rounded(min(r["processor"] for r in rounds))},
        "python": platform.python_version(), "load": _rounded(os.getloadavg()[0]),
    }  # fmt: skip


def _rounded(value: float) -> float:
    return round(value, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="FILE")
    given = parser.parse_args()
    print_figures({"command": "python -m tests.benchmarks.gate", **figures()}, given.output)


if __name__ == "__main__":
    main()
