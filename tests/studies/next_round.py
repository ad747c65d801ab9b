"""Runs a first grid, then the grid that `harness next` writes after it, on three suites, and compares the two.

    python -m tests.studies.next_round --output reports/studies/next-round.json
    python -m tests.studies.next_round --model pocket --profile cpu --seeds 0 --suites json-format --output FILE

The suites are `workshop`, `json-format`, and one generated from a seed. The first grid has two learning rates and no
rehearsal. The best variant of a grid is the one that the run chose. If it chose none, it is the one with the highest
pass rate on the objective; of several, the one that loses least. The second grid brings an improvement if one of its
variants gains at least as much as the best of the first grid, and loses less (both as estimates). The verdicts are
recorded beside it. All suites run at the same time. No training begins after `--limit` seconds; what is then missing is
recorded as such. With `--folder`, the suites and runs are kept there, and the same command continues where the limit
ended it. The file is written again after each step.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
from harness.analysis import next_trials
from harness.analysis.contamination import prompts_near
from harness.core.device_profiles import PROFILES
from harness.core.run_results import Outcome, Results
from harness.core.training_outcome import Status
from harness.models.resolving import resolve
from harness.storage.files import write_text
from harness.storage.runs import RunStore
from harness.suites import load_suite
from harness.suites.rehearsal import FILE, POOL, parse_pool
from tests.studies.placebos import lines
from tests.support import generated_suites

SUITES = Path(__file__).resolve().parents[2] / "suites"
GENERATED = "generated"
SEED = 906
"""Seed of the generated suite."""
FIRST = {
    "epochs": 6, "batch_size": 4, "warmup": 0.1, "scheduler": "cosine", "rank": 16, "alpha": 32,
    "target_modules": "all-linear",
}  # fmt: skip
RATES = (3e-4, 1e-3)
LEAST = 10.0
"""Seconds below which no run is started."""


@dataclass
class Record:
    """The study's file, which the suites' threads write."""

    file: Path
    head: dict[str, Any]
    suites: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, suite: str, **found: Any) -> None:
        with self.lock:
            self.suites.setdefault(suite, {}).update(found)
            better = [name for name, own in self.suites.items() if own.get("better")]
            write_text(self.file, lines({**self.head, "better_in": better, "suites": self.suites}))


@dataclass(frozen=True)
class Study:
    """What the runs of all suites share. `end` is a time of `time.monotonic`."""

    folder: Path
    options: tuple[str, ...]
    end: float
    record: Record

    def harness(self, *words: str) -> str:
        """Run a command of the harness, and return the end of what it printed."""
        package = str(Path(harness.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "harness", *words]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
        return (done.stdout + done.stderr)[-1500:]

    def run(self, suite: str, grid: str) -> Results | None:
        """Run a grid, record its variants, and return its results; None without time, and if the run failed."""
        left = self.end - time.monotonic()
        if left < LEAST:
            self.record.add(suite, **{grid: {"missing": "no time was left"}})
            return None
        run = self.folder / "runs" / f"{suite}-{grid}"
        words = ["run", str(self.folder / suite), "--grid", grid, "--output", str(run), "--budget", f"{left:.0f}s"]
        printed = self.harness(*words, *self.options, "--quiet")
        if not RunStore(run).has_results:
            self.record.add(suite, **{grid: {"missing": printed}})
            return None
        results = RunStore(run).results()
        self.record.add(suite, **{grid: summary(results)})
        return results

    def both(self, suite: str) -> None:
        """Run the first grid of a suite, and the one that `harness next` writes after it, and compare them."""
        before = self.run(suite, "first")
        if before is None or next_trials.unfinished(before):
            return
        grid = self.folder / suite / "grids" / "next.yaml"
        printed = self.harness("next", str(self.folder / "runs" / f"{suite}-first"), "--output", str(grid))
        self.record.add(suite, proposed=printed.replace(str(self.folder), "FOLDER").splitlines())
        after = self.run(suite, "next") if grid.exists() else None
        if after:
            self.record.add(suite, better=better(before, after))


def summary(results: Results) -> dict[str, Any]:
    """Return the base model's pass rates, and gain, loss and verdict of each variant."""
    rates = {role.value: [rate.passed, rate.total] for role, rate in results.base.rates.items()}
    best = best_of(results)
    confirmed, facts = results.choice.confirmation, results.run.provenance
    return {
        "device": facts.machine.device, "versions": facts.versions,
        "seeds": list(results.run.plan.seeds), "base": rates, "chosen": results.choice.variant,
        "confirmation": confirmed and confirmed.finding.value, "best": best and best.name,
        "variants": [_variant(results, variant) for variant in results.variants],
    }  # fmt: skip


def _variant(results: Results, variant: Outcome) -> dict[str, Any]:
    loss, change = variant.loss, variant.changes.get(results.choice.objective)
    return {
        "name": variant.name,
        "statuses": [status.value for status in variant.statuses],
        "rates": {role.value: [rate.passed, rate.total] for role, rate in variant.rates.items()},
        "gain": change and [round(value, 1) for value in (change.points, change.low, change.high)],
        "loss": loss and [_rounded(value) for value in (loss.points, loss.lower, loss.upper)],
        "verdict": loss and loss.verdict.value,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def best_of(results: Results) -> Outcome | None:
    """Return the chosen variant, else the one that gains most; of several, the one that loses least."""
    chosen = next((v for v in results.variants if v.name == results.choice.variant), None)
    known = [v for v in results.variants if v.settings and results.choice.objective in v.changes]
    return chosen or max(known, key=lambda v: (gain(results, v), -lost(v)), default=None)


def gain(results: Results, variant: Outcome) -> float:
    return variant.changes[results.choice.objective].points


def lost(variant: Outcome) -> float:
    return variant.loss.points if variant.loss and variant.loss.points is not None else 0.0


def better(before: Results, after: Results) -> list[str]:
    """Return the variants of the second run that gain at least as much as the best of the first, and lose less.

    Only variants that finished under every seed count.
    """
    best = best_of(before)
    return [
        variant.name
        for variant in after.variants
        if best and after.choice.objective in variant.changes and set(variant.statuses) == {Status.SUCCEEDED}
        and gain(after, variant) >= gain(before, best) and lost(variant) < lost(best)
    ]  # fmt: skip


def write_suites(folder: Path, names: Sequence[str], seeds: Sequence[int], pool: int) -> None:
    """Write the suites with the first grid, and with the same prompts for rehearsal, unless they exist.

    The prompts are those of the harness which are near no case of any of the suites, or `pool` of them, spread evenly.
    With the same prompts, the base model's answers are made once.
    """
    for name in names:
        if (folder / name).exists():
            continue
        if name == GENERATED:
            generated_suites.write(SEED, folder / name)
        else:
            shutil.copytree(SUITES / name, folder / name)
        rows = [{"learning_rate": rate} for rate in RATES]
        grid = {"seeds": list(seeds), "settings": FIRST, "rows": rows}
        (folder / name / "grids" / "first.yaml").write_text(json.dumps(grid), encoding="utf-8")
    prompts = list(_far(parse_pool(POOL.read_text(encoding="utf-8"), FILE), [folder / name for name in names]))
    some = prompts if pool >= len(prompts) else [prompts[len(prompts) * n // pool] for n in range(pool)]
    text = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in some)
    for name in names:
        (folder / name / FILE).write_text(text, encoding="utf-8")


def _far(prompts: Sequence[str], suites: Sequence[Path]) -> Iterator[str]:
    near = {prompt for suite in suites for prompt in prompts_near(load_suite(suite), prompts)}
    yield from (prompt for prompt in prompts if prompt not in near)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--profile", choices=PROFILES, default="t4")
    parser.add_argument("--suites", nargs="+", default=["workshop", "json-format", GENERATED], metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--pool", type=int, default=200, metavar="N", help="Number of prompts for rehearsal.")
    parser.add_argument("--confirm-seeds", type=int, default=0, metavar="N")
    parser.add_argument("--limit", type=float, default=330, metavar="SECONDS")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="Keep the suites and runs here (default: nowhere).")
    given = parser.parse_args()
    began = time.monotonic()
    words = ["python", "-m", "tests.studies.next_round", *sys.argv[1:]]
    options = ("--model", given.model, "--profile", given.profile, "--confirm-seeds", str(given.confirm_seeds))
    with tempfile.TemporaryDirectory(prefix="harness-next-") as name, ThreadPoolExecutor() as threads:
        folder = (given.folder or Path(name)).resolve()
        write_suites(folder, given.suites, given.seeds, given.pool)
        record = Record(given.output, {"command": " ".join(words), "first_grid": {**FIRST, "learning_rate": RATES}})
        study = Study(folder, options, began + given.limit, record)
        resolve(given.model)  # converts the model once, before three runs need it
        list(threads.map(study.both, given.suites))
    for suite, found in record.suites.items():
        first, after = (found.get(grid, {}).get("best") for grid in ("first", "next"))
        print(f"{suite}: best of the first grid {first}, of the next {after}; better: {found.get('better')}")


if __name__ == "__main__":
    main()
