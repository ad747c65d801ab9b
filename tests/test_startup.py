"""Tests that commands which train nothing do not import training libraries, since this would take seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.analysis.regression.bless import bless
from harness.storage.runs import RunStore
from tests.support.synthetic_runs import results

ROOT = Path(__file__).parent.parent
SUITE = "suites/workshop"
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "evaluate",
    "pandas",
    "pyarrow",
}
PROBE = """
import json, sys
from harness.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as leaving:
    code = leaving.code
print(json.dumps({"code": code or 0, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def imported_by(*arguments: str) -> set[str]:
    """Run a command in a new process, check that it succeeds, and return the top-level modules that it imports."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["code"] == 0, done.stdout + done.stderr
    return set(result["modules"])


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("validate", SUITE), ("plan", SUITE), ("tokens", SUITE), ("new", "--help")],
    ids=lambda a: a[0],
)
def test_help_validate_tokens_and_plan_import_nothing_that_trains(arguments: tuple[str, ...]) -> None:
    """`--help`, `validate`, `tokens` and `plan` import no training library, `evaluate` or `pandas`."""
    assert not imported_by(*arguments) & HEAVY


def test_writing_a_report_imports_nothing_that_trains(tmp_path: Path) -> None:
    """`harness report` on a finished run imports no training library, and not the packages `evaluate` and `pandas`."""
    found, run = results(count=2, failures=False), RunStore(tmp_path)
    run.write_manifest(found.run)
    run.write_results(found, [], lambda: "")
    assert not imported_by("report", str(tmp_path)) & HEAVY


def test_the_gate_imports_nothing_that_trains(tmp_path: Path) -> None:
    """`harness gate` imports no training library, no chart library and no template engine."""
    found, run = results(count=2, failures=False), RunStore(tmp_path / "run")
    run.write_manifest(found.run)
    run.write_results(found, [], lambda: "")
    kept = bless(run, "kept", tmp_path)
    assert not imported_by("gate", str(run.root), "--baseline", str(kept)) & (HEAVY | {"altair", "jinja2"})


def test_help_imports_nothing_that_draws() -> None:
    """`harness --help` imports no chart library, no template engine, and not the packages `pydantic` and `yaml`."""
    assert not imported_by("--help") & {"altair", "vl_convert", "jinja2", "pydantic", "yaml"}
