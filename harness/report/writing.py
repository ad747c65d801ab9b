"""Writes the report of one run or of two: page, Markdown summary, CSV tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from harness import report
from harness.analysis.regression import gate, gate_output
from harness.core.errors import UsageError
from harness.core.results import Results
from harness.hardware.environment import now
from harness.report import data_frame, markdown, spreadsheets
from harness.storage.files import write_text
from harness.storage.runs import RunStore, find_run


class Format(StrEnum):
    HTML = "html"
    MARKDOWN = "md"
    CSV = "csv"


def write(store: RunStore, results: Results, *, now: str) -> Results:
    """Write results.json, samples.jsonl and the page, with the parity stages that the run directory holds."""
    complete = replace(results, parities=store.parities())
    store.write_results(complete, data_frame.samples(complete), report.render(complete, now=now))
    return complete


def rewrite(store: RunStore) -> Results:
    """Write a finished run's page again."""
    return write(store, store.results(), now=now())


def of_run(run: Path, form: Format, output: Path | None) -> str:
    """The text to print: the path of the page or of the tables, or the summary itself."""
    store = find_run(run)
    if form is Format.MARKDOWN:
        return _printed(markdown.summary(store.results()), output)
    if form is Format.CSV:
        return _written(spreadsheets.tables(store.results()), output or store.root / "tables")
    if output is None:
        rewrite(store)
        return str(store.report)
    return _page(report.render(store.results(), now=now()), output)


def of_two(before: Path, after: Path, form: Format, output: Path | None, *, allow_code: bool = False) -> str:
    """Compare two runs, the earlier one first, and return the text to print.

    Raises:
        UsageError: both are the same run, or scoring again would run code that is not allowed.
    """
    old, new = find_run(before), find_run(after)
    if old.root.resolve() == new.root.resolve():
        raise UsageError(f"{before} and {after} are the same run", remedy="Name two runs, the earlier one first.")
    decision = gate.compare_runs(old, new, allow_code=allow_code)
    if form is Format.MARKDOWN:
        return _printed(gate_output.markdown(decision), output)
    if form is Format.CSV:
        return _written(spreadsheets.comparison_tables(decision), output or new.root / f"against-{old.root.name}")
    return _page(report.render_comparison(decision, now=now()), output or new.root / f"against-{old.root.name}.html")


def _printed(text: str, output: Path | None) -> str:
    return text.rstrip("\n") if output is None else _page(text, output)


def _page(text: str, path: Path) -> str:
    if path.is_dir():
        raise UsageError(f"{path} is a directory", remedy="Name a file, such as report.html.")
    write_text(path, text)
    return str(path)


def _written(tables: Mapping[str, str], folder: Path) -> str:
    """Write the tables into a folder; returns their paths, one a line."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", remedy="Name a directory: --format csv writes several files.")
    for name, text in tables.items():
        write_text(folder / name, text)
    return "\n".join(str(folder / name) for name in tables)
