"""Tests of the script of the GitHub action: its exit code, step summary and annotations."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.cli import main
from harness.core.run_results import Results
from tests.support import run_pairs
from tests.support.report_runs import LOST, stored

ROOT = Path(__file__).parent.parent
ACTION = ROOT / ".github/actions/gate"


def act(folder: Path, later: Results | None, **variables: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the action's script, and return its process and the step summary.

    `harness run` copies the run `later` instead of training one, or fails if it is None. All else is real.
    """
    if later:
        stored(later, folder / "later")
    module = f"{shlex.quote(sys.executable)} -m harness"
    fails = f'exec {module} "$@"' if later is None else 'while [ "$1" != --output ]; do shift; done; cp -r later "$2"'
    command = folder / "bin/harness"
    command.parent.mkdir()
    command.write_text(f'#!/bin/bash\nif [ "$1" = run ]; then {fails}; else exec {module} "$@"; fi\n', encoding="utf-8")
    command.chmod(0o755)
    summary = folder / "summary.md"
    environment = {
        **os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "GRID": "gate",
        "MODEL": "pocket", "ENGINE": "reference", "SUITE": "nowhere", "BASELINE": "before", "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(folder / "output"), "RUNNER_TEMP": str(folder),
        **variables,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(ACTION / "gate.sh")], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    return done, summary.read_text(encoding="utf-8")


@pytest.fixture
def blessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a baseline that is named `before`."""
    monkeypatch.chdir(tmp_path)
    stored(run_pairs.results(), tmp_path / "before")
    assert main(["bless", "before", "--name", "before"]) == 0
    return tmp_path


def test_an_unchanged_run_is_green(blessed: Path) -> None:
    """If nothing has changed, the step succeeds, and its summary is the verdict."""
    done, summary = act(blessed, run_pairs.results())
    assert done.returncode == 0, done.stderr
    assert summary.startswith("## Regression gate: unchanged")
    assert "::error" not in done.stdout
    assert "code=0" in (blessed / "output").read_text(encoding="utf-8")


def test_a_regression_fails_the_step(blessed: Path) -> None:
    """A regression ends the step with 1, an annotation, and a summary that shows the lost cases."""
    done, summary = act(blessed, run_pairs.results(LOST))
    assert done.returncode == 1, done.stderr
    assert "::error title=default%3A regressed::" in done.stdout
    assert summary.startswith("## Regression gate: regressed")
    assert "learn 0" in summary


@pytest.mark.parametrize(
    ("later", "variables", "words"),
    [
        (None, {}, "harness run failed"),
        (run_pairs.results(), {"BASELINE": "nowhere $(touch pwned)"}, "harness gate failed"),
    ],
)
def test_broken_input_is_named(blessed: Path, later: Results | None, variables: dict[str, str], words: str) -> None:
    """A suite or a baseline that does not exist ends the step with 2; annotation and summary name it."""
    done, summary = act(blessed, later, **variables)
    assert done.returncode == 2, done.stderr
    assert f"::error title={words} with exit code 2::" in done.stdout
    assert words in summary
    assert "nowhere" in summary
    assert not (blessed / "pwned").exists()


def test_the_suite_is_never_read_as_an_option(blessed: Path) -> None:
    """A suite whose name looks like an option of `harness run` is a folder that does not exist."""
    done, _ = act(blessed, None, SUITE="--help")
    assert "::error title=harness run failed with exit code 2::" in done.stdout


def test_a_comment_is_added_to_the_pull_request(blessed: Path) -> None:
    """With `comment`, `gh pr comment` gets the verdict. If that fails, a warning says so, and the verdict stands."""
    command = blessed / "gh/gh"
    command.parent.mkdir()
    command.write_text('#!/bin/bash\necho "$@" > told\ngrep -c gate "$5"\nexit 1\n', encoding="utf-8")
    command.chmod(0o755)
    path = f"{blessed / 'bin'}:{command.parent}:{os.environ['PATH']}"
    done, _ = act(blessed, run_pairs.results(), COMMENT="true", PULL_REQUEST="7", PATH=path)
    assert (blessed / "told").read_text(encoding="utf-8").startswith("pr comment 7 --body-file")
    assert "::warning title=gate::" in done.stdout
    assert done.returncode == 0


def test_the_script_reads_what_the_action_gives() -> None:
    """Each input of the action but the install's reaches the script as a variable, and none is put into its code."""
    action = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))
    step = action["runs"]["steps"][1]
    given = {value for value in step["env"].values() if "inputs." in value}
    assert given == {f"${{{{ inputs.{name} }}}}" for name in action["inputs"]}
    assert "${{" not in "".join(each["run"] for each in action["runs"]["steps"])


def test_the_workflow_calls_the_script_of_all_checks() -> None:
    """The workflow `check` runs `.ci/run`, and no workflow may write to the repository."""
    flows = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / ".github/workflows").glob("*.yml")]
    steps = [step for flow in flows for job in flow["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in [step.get("run") for step in steps]
    assert {str(flow["permissions"]) for flow in flows} == {"{'contents': 'read'}"}
