"""Records how much memory and time trainings take on a GPU limited to a T4's memory, below and above that limit.

    python -m tests.studies.gpu_sweep --output reports/gpu/t4

Runs `harness run` for each architecture, with random weights in its shape, so nothing is downloaded. A trial that does
not fit ends its worker, as it would for a user. For Llama-2-7b, a few trials run first, to show which settings take
close to the limit; then the run is repeated with such settings added. Each trial takes four optimizer steps on rows of
full length, which shows its true peak. Writes each run's report and OUTPUT/t4-sweep.json (format:
reports/gpu/README.md), which `tests.studies.estimate_fit` reads. Takes about ten minutes on an H100. With `--models`,
only the named models are run, and the records of other models in OUTPUT are kept. Exits with 1 if a printed claim does
not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import harness
from harness.core.measurement import GIB, Measurement, Phase, PhaseCost, Shortage
from harness.core.run import TrialRecord
from harness.core.training_outcome import Status
from harness.storage.runs import RunStore

FORMAT = 1
LINE = 14.2
NEAR = 0.15
ROWS = 24
STEPS = 4
"""Optimizer steps of each trial.

fp16 may skip the first steps, and the optimizer holds its state only after a step that was not skipped.
"""
SEVEN = "shape:llama-2-7b"
OTHERS = ("shape:tinyllama-1.1b", "shape:qwen2.5-1.5b", "shape:llama-3.1-8b")

A_TRIAL_FAILED = 3

Row = dict[str, Any]


def row(rank: int, length: int, batch: int, steps: int = STEPS, **more: Any) -> Row:
    """Return a grid row whose training takes `steps` steps at any batch size."""
    given = {"rank": rank, "max_length": length, "batch_size": batch, "optimizer": "adamw_torch"} | more
    seen = steps * batch * given.get("gradient_accumulation", 1)
    return {"name": named(given), **given, "epochs": seen / ROWS}


def named(given: Mapping[str, Any]) -> str:
    short = {"adamw_torch": "", "paged_adamw_8bit": " paged"}
    text = f"r{given['rank']} {given['batch_size']}x{given['max_length']}{short[given['optimizer']]}"
    text += f" acc{given['gradient_accumulation']}" if "gradient_accumulation" in given else ""
    return text + (" qv" if "target_modules" in given else "")


PAGED = {"optimizer": "paged_adamw_8bit"}
WORKSHOP = row(16, 512, 1, **PAGED)
FIRST = (
    WORKSHOP,
    row(8, 128, 1),
    row(16, 1024, 2),
    row(16, 1024, 6),
    row(64, 1024, 4),
    row(64, 256, 2),
    row(32, 512, 4, **PAGED, gradient_accumulation=2),
    row(16, 256, 2, **PAGED, target_modules="qv"),
)
"""First settings for the 7B model, from little memory to much; they include the workshop's settings."""
SMALL = (
    row(8, 128, 1),
    WORKSHOP,
    row(16, 512, 4),
    row(64, 1024, 4),
    row(32, 1024, 8, **PAGED),
    row(64, 256, 8, gradient_accumulation=2),
    row(16, 1024, 2, **PAGED, target_modules="qv"),
)
"""Settings for the other architectures. `tests.studies.estimate_fit` predicts each one from a fit to the rest."""


# --- choosing --------------------------------------------------------------------------------------------------------


def close_to_the_line(found: Sequence[tuple[Row, float]], steps: int) -> list[Row]:
    """Return settings close to a T4's memory limit: six estimated to need slightly less, and four that need more.

    The estimate is linear in rank and tokens per batch, and fitted to the peaks, in bytes, of AdamW trials with rows of
    1024 tokens. Longer rows are used only if eight rows of 1024 do not reach the limit.
    """
    import numpy as np

    given = [(r, peak) for r, peak in found if r["optimizer"] == "adamw_torch" and r["max_length"] == 1024]
    factors = np.array([[1.0, r["batch_size"] * r["max_length"], r["rank"]] for r, _ in given])
    fit, *_ = np.linalg.lstsq(factors, np.array([peak for _, peak in given]), rcond=None)
    there = {r["name"] for r, _ in found}
    candidates = []
    for rank, length, batch in product(
        (8, 16, 32, 64), (512, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072), (3, 4, 6, 8)
    ):
        share = float(fit @ [1.0, batch * length, rank]) / (LINE * GIB)
        candidates.append((length > 1024, share, row(rank, length, batch, steps)))
    below = _spread([c for c in candidates if c[2]["name"] not in there], 0.87, 0.97, 6)
    return below + _spread(candidates, 1.04, 1.14, 1) + _spread(candidates, 1.25, 1.7, 3)


def _spread(candidates: Iterable[tuple[bool, float, Row]], low: float, high: float, count: int) -> list[Row]:
    """Choose `count` candidates whose estimate lies between two shares of the limit.

    Candidates of different ranks come first, then those with at most 1024 tokens per row.
    """
    left = sorted((c for c in candidates if low <= c[1] <= high), key=lambda c: (c[0], -c[2]["rank"], c[1]))
    chosen: list[Row] = []
    while left and len(chosen) < count:
        ranks = [r["rank"] for r in chosen]
        best = min(left, key=lambda c: (ranks.count(c[2]["rank"]), c[0]))
        left.remove(best)
        chosen.append(best[2])
    return chosen


# --- running ---------------------------------------------------------------------------------------------------------


def write_suite(folder: Path, grids: Mapping[str, Sequence[Row]]) -> Path:
    """Write a suite with rows longer than any `max_length`, and enough prompts for one batch of answers."""
    suite = folder / "t4"
    (suite / "grids").mkdir(parents=True, exist_ok=True)
    cases = [{"prompt": f"Say {n}.", "assert": [{"type": "contains", "value": str(n)}]} for n in range(8)]
    head = {"objective": "learn", "decoding": {"max_new_tokens": 16}, "tests": cases}
    (suite / "suite.yaml").write_text(json.dumps(head), encoding="utf-8")
    long = "river stone lamp quiet market " * 900
    lines = (json.dumps({"prompt": f"Tell me story {n}.", "completion": long}) + "\n" for n in range(ROWS))
    (suite / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    for name, rows in grids.items():
        text = {"seeds": [0], "settings": {"learning_rate": 1e-4, "warmup": 0}, "rows": list(rows)}
        (suite / "grids" / f"{name}.yaml").write_text(json.dumps(text), encoding="utf-8")
    return suite


def sweep(work: Path, model: str, rows: Sequence[Row], profile: str, grid: str) -> Path:
    """Run `harness run` once, and return the run's directory."""
    suite, run = write_suite(work, {grid: rows}), work / "runs" / f"{grid}-{model.replace(':', '-')}"
    words = ["run", str(suite), "--model", model, "--profile", profile, "--grid", grid, "--output", str(run), "--quiet"]
    words += ["--engine", "reference"]
    package = str(Path(harness.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, "-m", "harness", *words], cwd=work, env=os.environ | {"PYTHONPATH": path})
    if done.returncode != 0:
        for log in sorted((run / "workers").glob("*.log")):
            print(f"--- {log}\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}", flush=True)
    if done.returncode not in (0, A_TRIAL_FAILED):
        raise SystemExit(f"harness {' '.join(words)}: exit code {done.returncode}")
    return run


# --- recording -------------------------------------------------------------------------------------------------------


def recorded(run: Path) -> dict[str, Any]:
    """Return the records of a run: its command, the base and every trial, in bytes and seconds."""
    store = RunStore(run)
    manifest, records = store.manifest(), store.records()
    names = {variant.id: variant.name for variant in manifest.plan.variants}
    order = [trial.id for trial in manifest.plan.trials]
    base = next(r for r in records if r.settings is None)
    trials = sorted((r for r in records if r.settings), key=lambda r: order.index(r.trial))
    return {
        "model": manifest.model.name,
        "model_digest": manifest.model.digest,
        "script": _plain("python -m tests.studies.gpu_sweep " + shlex.join(sys.argv[1:])),
        "command": _plain(manifest.provenance.command),
        "started": manifest.provenance.started,
        "device": manifest.provenance.machine.device,
        "rows": len(manifest.suite.examples),
        "workers": len(list((run / "workers").glob("*.log"))),
        "base": _trial(base, "base"),
        "trials": [_trial(record, names[record.variant]) for record in trials],
    }


def _plain(command: str) -> str:
    """Return the command without the paths of this machine."""
    places = {"--output": "DIR", "run": "SUITE"}
    words = shlex.split(command)
    return shlex.join(places.get(before, word) for before, word in zip(["", *words], words, strict=False))


def _trial(record: TrialRecord, name: str) -> dict[str, Any]:
    training = record.training
    return {
        "name": name,
        "settings": record.settings.as_dict() if record.settings else None,
        "status": record.status.value,
        "message": record.message,
        "log": record.log,
        "trainable_parameters": training.trainable_parameters if training else 0,
        "supervised_tokens": training.supervised_tokens if training else 0,
        "steps": [[step.loss, step.grad_norm] for step in training.steps] if training else [],
        "phases": {cost.phase.value: _cost(cost) for cost in record.costs},
        "shortage": _shortage(record.shortage),
    }


def _cost(cost: PhaseCost) -> dict[str, Any]:
    return {
        "seconds": cost.seconds.value,
        "tokens": cost.tokens,
        "resident": _size(cost.peak_resident),
        "allocated": _size(cost.peak_allocated),
        "reserved": _size(cost.peak_reserved),
        "device": _size(cost.peak_device),
        "left_allocated": _size(cost.left_allocated),
        "limit": _size(cost.limit),
    }


def _shortage(short: Shortage | None) -> dict[str, Any] | None:
    return short and {
        "phase": short.phase.value,
        "requested": _size(short.requested),
        "resident": _size(short.resident),
        "allocated": _size(short.peak_allocated),
        "reserved": _size(short.peak_reserved),
        "device": _size(short.device),
        "limit": _size(short.limit),
    }


def _size(figure: Measurement | None) -> int | None:
    return int(figure.value) if figure else None


def reach(trial: Mapping[str, Any]) -> float:
    """Return the GiB that a training reserved. If it ran out of memory, return its use plus the failed request."""
    short, train = trial["shortage"], trial["phases"].get(Phase.TRAIN.value)
    size = (short["allocated"] or 0) + (short["requested"] or 0) if short else (train or {}).get("reserved") or 0
    return float(size) / GIB


# --- claims ----------------------------------------------------------------------------------------------------------


def claims(seven: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return each claim about the 7B model with its measured figures, and whether it holds."""
    trials = seven["trials"]
    ended = [trial["status"] for trial in trials]
    short = [t for t in trials if t["status"] == Status.OUT_OF_MEMORY]
    near = [t for t in trials if abs(reach(t) / LINE - 1) <= NEAR]
    base = seven["base"]["phases"][Phase.LOAD.value]["left_allocated"] or 0
    workshop = next(t for t in trials if t["name"] == WORKSHOP["name"])
    peak = reach(workshop)
    lost = [t["name"] for t in trials if t["status"] == Status.SUCCEEDED and not _counted(t)]
    return [
        (f"at least 12 trials, all with a result: of {len(trials)}, {ended.count(Status.SUCCEEDED)} fit",
         len(trials) >= 12 and {*ended} <= {Status.SUCCEEDED, Status.OUT_OF_MEMORY}),
        (f"at least two do not fit: {len(short)}", len(short) >= 2),
        (f"at least six within 15% of {LINE} GiB: {len(near)}", len(near) >= 6),
        (f"a worker for each that does not fit, and one: {seven['workers']}", seven["workers"] >= len(short)),
        (f"the NF4 base at most 3.9 GiB: {base / GIB:.2f}", base <= 3.9 * GIB),
        (f"rank 16, 1 x 512 at most 6 GiB reserved: {peak:.2f}", peak <= 6.0),
        (f"an optimizer step counted before the last: {lost or 'in all'}", not lost),
    ]  # fmt: skip


def _counted(trial: Mapping[str, Any], steps: int = -1) -> bool:
    """Return whether one of the first `steps` optimizer steps was not skipped; by default, the last is left out."""
    return any(norm is not None for _, norm in trial["steps"][:steps])


def table(trials: Iterable[Mapping[str, Any]]) -> str:
    lines = []
    for trial in trials:
        train = trial["phases"].get(Phase.TRAIN.value, {})
        took = f"{train['seconds']:6.1f} s" if train else ""
        lines.append(f"  {trial['name']:28} {trial['status']:14} {reach(trial):6.2f} GiB {took} {trial['message']}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--profile", default="t4")
    parser.add_argument("--models", nargs="*", default=[SEVEN, *OTHERS])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    began, found = time.monotonic(), _others(given.output, given.models)
    with tempfile.TemporaryDirectory(prefix="harness-sweep-") as folder:
        work = Path(folder)
        for model in given.models:
            rows = FIRST if model == SEVEN else SMALL
            run = sweep(work, model, rows, given.profile, "first")
            if model == SEVEN:
                made = recorded(run)["trials"]
                pairs = [(r, reach(t) * GIB) for r, t in zip(rows, made, strict=True) if not t["shortage"]]
                quick = all(_counted(t, 1) for t in made if not t["shortage"])
                rows = (*rows, *close_to_the_line(pairs, STEPS - 1 if quick else STEPS))
                run = sweep(work, model, rows, given.profile, "line")
            found.append(recorded(run))
            print(f"{model}, after {time.monotonic() - began:.0f} s\n{table(found[-1]['trials'])}", flush=True)
            _keep(given.output, model, run, found)
    shown = [claim for each in found if each["model"] == SEVEN for claim in claims(each)]
    for text, holds in shown:
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {text}")
    return 0 if all(holds for _, holds in shown) else 1


def _others(output: Path, models: Sequence[str]) -> list[dict[str, Any]]:
    """Return the earlier records of models that are not run this time."""
    file = output / "t4-sweep.json"
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.is_file() else []
    return [run for run in runs if run["model"] not in models]


def _keep(output: Path, model: str, run: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Write the records. This is called after each model, so that an interrupted study keeps them."""
    facts = RunStore(run).manifest().provenance
    text = {
        "format": FORMAT,
        "machine": asdict(facts.machine),
        "versions": facts.versions,
        "runs": found,
    }
    (output / "t4-sweep.json").write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(run / "report.html", output / f"{model.partition(':')[2] or model}.html")


if __name__ == "__main__":
    sys.exit(main())
