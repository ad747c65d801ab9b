"""Recognise what is given in place of a suite: a task of lm-evaluation-harness or of inspect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from harness.core.errors import HarnessError, Place, SuiteError
from harness.core.yaml import read_text
from harness.suites.case_files import inside

LM_EVALUATION = re.compile(r"^(task|group):", re.MULTILINE)
LM_EVALUATION_KEYS = re.compile(
    r"^(dataset_path|dataset_name|doc_to_text|doc_to_target|doc_to_choice|output_type|fewshot_split|metric_list):",
    re.MULTILINE,
)
INSPECT = re.compile(r"^\s*(from|import) inspect_ai\b", re.MULTILINE)
MOST_FILES = 100
REMEDY = (
    "Export its documents as a CSV file with the columns prompt and answer, and make a suite of them: "
    "harness new suites/NAME --from FILE.csv"
)


def refuse_task(given: Path) -> None:
    """Raise an error if the file, or the folder without a suite.yaml, is a task of another tool.

    Raises:
        SuiteError: it is. The message says what it is, and how to make a suite of its documents.
    """
    for file in _files(given):
        try:
            tool = tool_of(file.suffix, read_text(inside(file.parent, file.name), file.name, SuiteError))
        except (HarnessError, OSError):
            continue
        if tool:
            raise SuiteError(f"this is a task of {tool}, not a suite", remedy=REMEDY, place=Place(str(file)))


def tool_of(suffix: str, text: str) -> str:
    """Return the name of the tool whose task a file is, by its suffix and its text; empty if it is none."""
    if suffix in (".yaml", ".yml") and LM_EVALUATION.search(text) and LM_EVALUATION_KEYS.search(text):
        return "lm-evaluation-harness"
    return "inspect" if suffix == ".py" and INSPECT.search(text) else ""


def _files(given: Path) -> Iterator[Path]:
    if given.is_file():
        yield given
    elif given.is_dir():
        found = sorted(file for file in given.iterdir() if file.suffix in (".yaml", ".yml", ".py"))
        yield from found[:MOST_FILES]
