"""A small suite that trains in seconds, functions that run it, and a function that reads reproducible results."""

from __future__ import annotations

import json
import os
import signal
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
"""Seconds after which a run is stopped because it hangs. Even on a busy machine, a run takes much less."""
RUN = Path("reports/runs/small-quick-pocket")


SHORT = """\
seeds: [0]
settings: {epochs: 4, batch_size: 4, rank: 2, alpha: 4}
axes: {learning_rate: [1e-5, 1e-2]}
"""
"""A grid whose trials have four steps."""


def small_suite(folder: Path, *, grid: str = GRID, margin: float = 100, tokens: int = 12) -> Path:
    """Write the suite `small` into a folder, with four training rows and the grid `quick` of two variants.

    Answers have at most `tokens` tokens.
    """
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
    head = {"objective": "learn", "margin": margin, "decoding": {"max_new_tokens": tokens}, "tests": tests}
    (suite / "suite.yaml").write_text(json.dumps(head, indent=1), encoding="utf-8")
    lines = (json.dumps({"prompt": prompt, "completion": answer}) + "\n" for prompt, answer in ROWS.items())
    (suite / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    (suite / "grids" / "quick.yaml").write_text(grid, encoding="utf-8")
    return suite


WORDS = ("run", "small", "--profile", "cpu", "--confirm-seeds", "1")


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start `harness run small` as a child process that Ctrl-C can end."""
    package = str(Path(harness.__file__).parent.parent)
    command = [sys.executable, "-m", "harness", *WORDS, *options]
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": package}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_allow_interrupts,
    )  # fmt: skip


def _allow_interrupts() -> None:
    """Restore the handling of SIGINT, which a shell makes the processes ignore that it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(folder: Path, *options: str) -> tuple[int, str, str]:
    """Run `harness run small` in a child process, and return exit code, stdout and stderr."""
    process = start(folder, *options)
    out, error = process.communicate(timeout=LIMIT)
    return process.returncode, out, error


def findings(folder: Path) -> dict[str, Any]:
    """Return the results of a run that are equal if it is repeated: all except costs, times and workers."""
    results = find_run(folder / RUN).results()
    rows = [results.base, *results.variants, results.confirmed_base, results.confirmed]
    return {
        "samples": [*results.samples, *results.confirmed_samples],
        "choice": results.choice,
        "statuses": [(row.name, row.seeds, row.statuses, row.messages) for row in rows if row],
        "rates": [row.rates for row in rows if row],
        "steps": [[(t.id, t.steps, t.supervised_tokens) for t in row.training] for row in rows if row],
    }


def logs(folder: Path) -> list[str]:
    """Return the names of the logs of all workers of the run."""
    return sorted(path.name for path in (folder / RUN / "workers").glob("*.log"))
