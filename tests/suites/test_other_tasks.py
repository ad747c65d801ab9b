"""Tests of what is said if a task of another tool is given in place of a suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.core.errors import SuiteError
from harness.suites import load_suite

LM_EVALUATION = """
task: capitals
dataset_path: json
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
process_results: !function utils.process
"""
INSPECT = "from inspect_ai import Task, task\n\n\n@task\ndef capitals():\n    return Task()\n"


@pytest.mark.parametrize(
    ("name", "text", "tool"),
    [("capitals.yaml", LM_EVALUATION, "lm-evaluation-harness"), ("capitals.py", INSPECT, "inspect")],
)
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_task_of_another_tool_is_named(tmp_path: Path, name: str, text: str, tool: str, as_folder: bool) -> None:
    """If a suite is a task of another tool, or a folder with one, the error says so and how to make a suite of it."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(SuiteError) as caught:
        load_suite(tmp_path if as_folder else tmp_path / name)
    assert f"this is a task of {tool}, not a suite\nExport its documents as a CSV file" in str(caught.value)


def test_the_remedy_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CSV file with the columns prompt and answer makes a suite that can be validated."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"What is {i} and {i}?,It is {2 * i}.\n" for i in range(12))
    Path("documents.csv").write_text(f"prompt,answer\n{rows}", encoding="utf-8")
    assert main(["new", "suites/capitals", "--from", "documents.csv"]) == 0
    assert main(["validate", "suites/capitals"]) == 0
