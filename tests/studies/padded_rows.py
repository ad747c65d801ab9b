"""Compares the predicted memory of trainings on padded rows with the measured memory, on a GPU.

    python -m tests.studies.padded_rows --output reports/gpu/t4/padded-rows.json

`tests.studies.gpu_sweep` has rows of one length only. This study trains `smollm2` and two shapes on the rows of
`suites/workshop`, and on rows of very different lengths (`ragged`), which are drawn from a seed. Rows of a batch are
padded to the longest one. Every training is predicted as `harness plan` predicts it. The record also holds what the
prediction needs (`predicted_again`), so that later code can be compared with it. The runs of all models take place at
the same time, since each process has its own memory limit; no times are recorded. The file is written again after each
run, so that an interrupted study keeps its records. `--seed` changes the ragged rows, and the order in which all rows
are trained. Exits with 1 if a prediction is off by more than `harness plan` states, or if nothing was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import harness
from harness.core.device_profiles import PROFILES
from harness.core.measurement import Phase
from harness.core.run import RunManifest, TrialRecord
from harness.core.settings import Quantization, Scheduler, Settings
from harness.core.training_outcome import Status
from harness.hardware.estimate import Coefficients, Memory, ModelShape, coefficients, predict
from harness.hardware.estimate.predictions import Workload, predict_trial, resolved_workload, target_gpu
from harness.models.resolving import resolve
from harness.storage.cache import Cache
from harness.storage.files import write_text
from harness.storage.locations import CACHE
from harness.storage.runs import RunStore
from tests.studies.placebos import lines

WORKSHOP = Path(__file__).resolve().parents[2] / "suites" / "workshop" / "train.jsonl"
MODELS = ("shape:tinyllama-1.1b", "shape:qwen2.5-1.5b", "smollm2")
"""The model that may have to be converted first is the last, so that the others run meanwhile."""
RAGGED = 40
WORDS = ("river", "stone", "lamp", "quiet", "market", "window", "seven", "paper", "cloud", "garden")
SETTINGS: dict[str, dict[str, Any]] = {
    "4 rows": {"rank": 16, "batch_size": 4},
    "4 rows, qv": {"rank": 16, "batch_size": 4, "target_modules": "qv"},
    "8 rows, r64": {"rank": 64, "batch_size": 8, "epochs": 2},
    "2 x 2 rows, paged": {"rank": 16, "batch_size": 2, "gradient_accumulation": 2, "optimizer": "paged_adamw_8bit"},
    "8 rows, 8-bit": {"rank": 8, "batch_size": 8, "epochs": 2, "optimizer": "adamw_8bit"},
}
"""Each trains at least seven steps: fp16 may skip the first ones, which then hold no state of the optimizer."""
A_TRIAL_FAILED = 3


def ragged(seed: int = 0) -> Iterator[str]:
    """Yield rows of 4 to 160 words, of which most are short."""
    draw = random.Random(f"ragged {seed}" if seed else "ragged")
    for _ in range(RAGGED):
        words = " ".join(draw.choices(WORDS, k=round(4 * 40 ** draw.random())))
        yield json.dumps({"prompt": f"Continue: {draw.choice(WORDS)}", "completion": words})


def write_suite(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write a suite with rows of this kind, the settings as a grid, and one case that takes little time."""
    suite = folder / kind
    (suite / "grids").mkdir(parents=True)
    case = {"role": "learn", "prompt": "Say 1.", "assert": [{"type": "contains", "value": "1"}]}
    head = {"objective": "learn", "decoding": {"max_new_tokens": 4}, "tests": [case]}
    (suite / "suite.yaml").write_text(json.dumps(head), encoding="utf-8")
    rows = WORKSHOP.read_text(encoding="utf-8") if kind == "workshop" else "\n".join(ragged(seed)) + "\n"
    (suite / "train.jsonl").write_text(rows, encoding="utf-8")
    shared = {"learning_rate": 1e-4, "warmup": 0, "epochs": 1}
    grid = {"seeds": [seed], "settings": shared, "rows": [{"name": name, **own} for name, own in SETTINGS.items()]}
    (suite / "grids" / "padded.yaml").write_text(json.dumps(grid), encoding="utf-8")
    return suite


def recorded(folder: Path, model: str, kind: str, profile: str) -> dict[str, Any]:
    """Run the suite on a model, and return predicted and measured bytes of every training."""
    run = folder / f"{kind}-{model.replace(':', '-')}"
    words = ["run", str(folder / kind), "--model", model, "--grid", "padded", "--profile", profile]
    words += ["--engine", "reference", "--confirm-seeds", "0", "--output", str(run), "--quiet"]
    package = str(Path(harness.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    changes = {"PYTHONPATH": path, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "harness", *words]
    done = subprocess.run(command, env=os.environ | changes, capture_output=True, text=True)
    if done.returncode not in (0, A_TRIAL_FAILED):
        return {"model": model, "rows": kind, "error": done.stderr[-2000:], "trials": []}
    manifest, records = RunStore(run).manifest(), RunStore(run).records()
    work = resolved_workload(manifest.model, manifest.suite)
    facts = manifest.provenance
    return {
        "model": model,
        "rows": kind,
        **predicted_from(work),
        "machine": asdict(facts.machine),
        "versions": facts.versions,
        "trials": list(_trials(manifest, records, work)),
    }


def predicted_from(work: Workload) -> dict[str, Any]:
    """Return what predictions need, besides the settings: the model's shape, and tokens and labels of each row."""
    lengths = {"tokens": work.lengths.tokens, "supervised": work.lengths.supervised}
    return {"shape": asdict(work.shape), "lengths": lengths}


def predicted_again(run: Mapping[str, Any], trial: Mapping[str, Any], known: Coefficients | None = None) -> Memory:
    """Predict a recorded training with the present code, by default with the coefficients of the package."""
    lengths, settings = run["lengths"], settings_of(trial["settings"])
    shape = ModelShape(**run["shape"])
    return predict(shape, settings, lengths["tokens"], lengths["supervised"], known=known).memory


def errors_again(record: Mapping[str, Any], known: Coefficients | None = None) -> dict[str, float]:
    """Return the relative error of the present prediction of each recorded training, by model, rows and settings."""
    return {
        f"{run['model']}, {run['rows']}, {trial['name']}": (
            predicted_again(run, trial, known).allocated / trial["allocated"] - 1
        )
        for run in record["runs"]
        for trial in run["trials"]
        if trial["off"] is not None
    }


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Return recorded settings (`Settings.as_dict`)."""
    modules = given["target_modules"]
    return replace(
        Settings(**given),
        scheduler=Scheduler(given["scheduler"]),
        quantization=Quantization(given["quantization"]),
        target_modules=modules if isinstance(modules, str) else tuple(modules),
    )


def _trials(manifest: RunManifest, records: Iterable[TrialRecord], work: Workload) -> Iterator[dict[str, Any]]:
    names = {v.id: v.name for v in manifest.plan.variants}
    target = target_gpu(PROFILES["t4"], Cache(CACHE))  # predicted peaks are the same for every GPU
    assert target is not None
    for record in records:
        if record.settings is None:
            continue
        made = predict_trial(work, record.settings, target)
        cost = next((cost for cost in record.costs if cost.phase is Phase.TRAIN), None)
        measured = cost and cost.peak_allocated and cost.peak_allocated.value
        reserved = cost and cost.peak_reserved and cost.peak_reserved.value
        norms = [step.grad_norm for step in record.training.steps] if record.training else []
        known = record.status is Status.SUCCEEDED and measured
        yield {
            "name": names[record.variant],
            "settings": record.settings.as_dict(),
            "status": record.status.value,
            "message": record.message,
            "predicted": round(made.memory.allocated),
            "moment": made.memory.moment.value,
            "allocated": measured,
            "off": round(made.memory.allocated / measured - 1, 4) if known and measured else None,
            "reserved": reserved,
            "reserved_predicted": [round(made.reserved.low), round(made.reserved.high)],
            "state_counted": any(norm is not None for norm in norms[:-1]),
        }


def summary(runs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare the largest error with the one that `harness plan` states."""
    trials = [trial for run in runs for trial in run["trials"] if trial["off"] is not None]
    errors = sorted(abs(trial["off"]) for trial in trials)
    inside = [t for t in trials if t["reserved_predicted"][0] <= t["reserved"] <= t["reserved_predicted"][1]]
    return {
        "stated": coefficients().error,
        "compared": len(errors),
        "median": errors[len(errors) // 2] if errors else None,
        "largest": errors[-1] if errors else None,
        "covered": bool(errors) and errors[-1] <= coefficients().error,
        "reserved_inside": len(inside),
    }


def study(models: Iterable[str], profile: str, seed: int, output: Path, command: str) -> dict[str, Any]:
    """Run every model on both kinds of rows at the same time, and write the file after each run."""
    found: dict[str, Any] = {}
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="harness-padded-") as name, ThreadPoolExecutor(max_workers=6) as pool:
        folder, started = Path(name), list[Future[dict[str, Any]]]()
        for kind in ("workshop", "ragged"):
            write_suite(folder, kind, seed)
        for model in models:
            resolve(model)  # converts a model once, before two runs need it
            started += [pool.submit(recorded, folder, model, kind, profile) for kind in ("workshop", "ragged")]
        for done in as_completed(started):
            runs.append(done.result())
            print(table(runs[-1]), flush=True)
            runs.sort(key=lambda run: (run["model"], run["rows"]))
            found = {"command": command, "summary": summary(runs), "runs": runs}
            write_text(output, lines(found))
    return found


def table(run: Mapping[str, Any]) -> str:
    head = f"{run['model']}, {run['rows']}: {run.get('error', '')}"
    rows = (f"  {t['name']:20} {t['status']:12} {t['predicted']} {t['allocated']} {t['off']}" for t in run["trials"])
    return "\n".join([head, *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--profile", choices=PROFILES, default="t4")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    given = parser.parse_args()
    command = f"python -m tests.studies.padded_rows --output {given.output} --profile {given.profile}"
    command += f" --seed {given.seed} --models {' '.join(given.models)}"
    found = study(given.models, given.profile, given.seed, given.output, command)
    print(found["summary"])
    return 0 if found["summary"]["covered"] else 1


if __name__ == "__main__":
    sys.exit(main())
