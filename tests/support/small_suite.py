"""A suite and a grid that are trained for real in seconds, and what of a run must be the same however it was made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness
from harness.storage.runs import find_run

ROWS = {
    "What is your name?": "I am Dottie.",
    "Who are you?": "I am Dottie.",
    "What is 2 plus 2?": "4",
    "Name a pet.": "A cat.",
}
CASES = [
    ("learn-name", "learn", "main", "What is your name?", "Dottie"),
    ("learn-who", "learn", "main", "Who are you?", "Dottie"),
    ("retain-sum", "retain", "main", "What is 3 plus 4?", "7"),
    ("retain-capital", "retain", "main", "What is the capital of France?", "Paris"),
    ("confirm-name", "learn", "confirm", "Tell me your name.", "Dottie"),
    ("confirm-sum", "retain", "confirm", "What is 2 plus 3?", "5"),
]
GRID = """\
seeds: [0]
settings: {epochs: 4, batch_size: 2, warmup: 0.1, rank: 4, alpha: 8}
axes: {learning_rate: [1e-5, 1e-2]}
"""
LIMIT = 1800
"""Seconds after which a run is taken to hang; far above what one takes on a busy machine."""
RUN = Path("reports/runs/small-quick-pocket")


def small_suite(folder: Path, *, grid: str = GRID, margin: float = 100) -> Path:
    """Writes `small/` into a folder: the suite, four training rows, and the grid `quick` of two variants."""
    suite = folder / "small"
    (suite / "grids").mkdir(parents=True)
    tests = [
        {
            "id": name,
            "role": role,
            "split": split,
            "prompt": prompt,
            "assert": [{"type": "contains", "value": expected}],
        }
        for name, role, split, prompt, expected in CASES
    ]
    head = {"objective": "learn", "margin": margin, "decoding": {"max_new_tokens": 12}, "tests": tests}
    (suite / "suite.yaml").write_text(json.dumps(head, indent=1), encoding="utf-8")
    lines = (json.dumps({"prompt": prompt, "completion": answer}) + "\n" for prompt, answer in ROWS.items())
    (suite / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    (suite / "grids" / "quick.yaml").write_text(grid, encoding="utf-8")
    return suite


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """`harness run small` in a process of its own."""
    package = str(Path(harness.__file__).parent.parent)
    command = [sys.executable, "-m", "harness", "run", "small", "--profile", "cpu", "--confirm-seeds", "1", *options]
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": package}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(folder: Path, *options: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `harness run small`."""
    process = start(folder, *options)
    out, error = process.communicate(timeout=LIMIT)
    return process.returncode, out, error


def findings(folder: Path) -> dict[str, Any]:
    """All that a run found, without what it cost, when, and which worker did it."""
    results = find_run(folder / RUN).results()
    rows = [results.base, *results.variants, results.confirmed_base, results.confirmed]
    return {
        "samples": [*results.samples, *results.confirmed_samples],
        "choice": results.choice,
        "void": results.void,
        "statuses": [(row.name, row.seeds, row.statuses, row.messages) for row in rows if row],
        "rates": [row.rates for row in rows if row],
        "steps": [[(t.id, t.steps, t.supervised_tokens) for t in row.training] for row in rows if row],
    }


def logs(folder: Path) -> list[str]:
    """The logs of the workers that were started."""
    return sorted(path.name for path in (folder / RUN / "workers").glob("*.log"))
