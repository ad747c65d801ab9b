"""Tests of --root and --skip-unsupported: they mean the same in every command that reads a suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.core.errors import SuiteError
from harness.runner.preparation import prepare
from harness.runner.request import Request
from harness.suites import load_suite
from tests.support.small_suite import GRID
from tests.support.suite_texts import ROW

SUITE = """
objective: learn
prompts: [../prompts/p.txt]
tests:
- {vars: {q: what}, assert: [{type: contains, value: x}]}
- {vars: {q: why}, assert: [{type: g-eval, value: kind}]}
- {vars: {q: when}}
"""
BOTH = ["--skip-unsupported", "--root", "."]
COMMANDS = [["validate"], ["plan", "--grid", "quick", "--profile", "cpu"], ["tokens", "--grid", "quick"]]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a suite whose prompts are beside it into the current folder."""
    monkeypatch.chdir(tmp_path)
    files = {"s/suite.yaml": SUITE, "s/train.jsonl": ROW, "s/grids/quick.yaml": GRID, "prompts/p.txt": "Say {{q}}"}
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command[0]))
def test_commands_read_a_suite_alike(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With both options the suite is read; without one of them it is refused, and the error names the option."""
    name, *rest = command
    assert main([name, "s", *rest, *BOTH]) == 0
    capsys.readouterr()
    assert main([name, "s", *rest, "--skip-unsupported"]) == 2
    assert "with --root DIR" in capsys.readouterr().err
    assert main([name, "s", *rest, "--root", "."]) == 2
    assert "--skip-unsupported" in capsys.readouterr().err


def test_a_run_reads_the_suite_as_validate_does() -> None:
    """A run asks exactly the cases that `harness validate` counts, and stores them whole."""
    run = prepare(Request(suite=Path("s"), skip_unsupported=True, root=Path()))
    assert run.suite.cases == load_suite("s", skip_unsupported=True, root=Path()).cases
    assert [case.prompt for case in run.suite.cases] == ["Say what"]
    with pytest.raises(SuiteError, match="leads out of the suite's folder"):
        prepare(Request(suite=Path("s"), skip_unsupported=True))
