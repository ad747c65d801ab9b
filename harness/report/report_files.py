"""Write the report of one run, or of two, in one of its formats: HTML, Markdown, CSV or Every Eval Ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path

from harness import report
from harness.analysis.regression import gate, gate_output
from harness.core.errors import UsageError
from harness.core.run_results import Results
from harness.hardware.environment import now
from harness.report import csv_tables, every_eval_ever, markdown
from harness.report.samples_file import samples
from harness.storage.files import write_text
from harness.storage.runs import RunStore, find_run


class Format(StrEnum):
    """The format of a report."""

    HTML = "html"
    MARKDOWN = "md"
    CSV = "csv"
    EEE = "eee"


def write(store: RunStore, results: Results, *, now: str) -> Results:
    """Write results.json, samples.jsonl and the HTML page. Add the export's parity results from the run directory."""
    complete = replace(results, parities=store.parities())
    store.write_results(complete, samples(complete), partial(report.render, complete, now=now))
    return complete


def rewrite(store: RunStore) -> Results:
    """Write the HTML page and the result files of a finished run again, from its stored results.

    The caller holds the run's lock, since a `harness run` that ends in the meantime would lose its results.
    """
    return write(store, store.results(), now=now())


def of_run(run: Path, form: Format, output: Path | None) -> str:
    """Write the report of a run, and return the text to print: the paths of the files, or the Markdown summary.

    Raises:
        RunInUseError: the files of the run itself are to be written, and another process is working in its directory.
    """
    store = find_run(run)
    if form is Format.MARKDOWN:
        return _print_or_write(markdown.summary(store.results()), output)
    if form is Format.CSV:
        return _write_tables(csv_tables.run_tables(store.results()), output or store.root / "tables")
    if form is Format.EEE:
        return _write_tables(every_eval_ever.files(store.results()), output or store.root / "eee")
    store.check_results()
    if output is None:
        with store.locked("write the page elsewhere with --output FILE"):
            rewrite(store)
        return str(store.report)
    return _write_file(report.render(store.results(), now=now()), output)


def handouts(runs: Sequence[Path], form: Format, output: Path | None) -> str:
    """Write the handout of each run: one printed page. Return the paths, one per line.

    Raises:
        UsageError: `output` is given for several runs, or the format is not HTML.
    """
    if form is not Format.HTML:
        raise UsageError(f"a handout has no format {form}", remedy="Leave out --format, or leave out --handout.")
    if output and len(runs) > 1:
        raise UsageError(
            f"--output {output} is one file, but {len(runs)} runs have a handout each",
            remedy="Leave out --output, so that each is written into its run's directory, or name one run.",
        )
    return "\n".join(_handout(run, output) for run in runs)


def _handout(run: Path, output: Path | None) -> str:
    store = find_run(run)
    store.check_results()
    return _write_file(report.render_handout(store.results(), now=now()), output or store.root / "handout.html")


def of_several(runs: Sequence[Path], form: Format, output: Path | None, *, allow_code: bool = False) -> str:
    """Write the page of several runs, and return its path. Two runs on the same base model are compared instead.

    Raises:
        UsageError: the runs ask different cases, are named twice, or are to be written in a format other than HTML.
    """
    stores = [find_run(run) for run in runs]
    if len({store.root.resolve() for store in stores}) < len(stores):
        raise UsageError("a run is named twice", remedy="Name each run once.")
    before, after = runs[:2]
    if len(runs) == len((before, after)) and _same_base(stores):
        return of_two(before, after, form, output, allow_code=allow_code)
    if form is not Format.HTML:
        raise UsageError(
            f"runs on different bases have no report in the format {form}",
            remedy="Leave out --format, or name one run.",
        )
    found = [(Path(given), store.results()) for given, store in zip(runs, stores, strict=True)]
    page = report.render_bases(found, now=now())
    return _write_file(
        page, output or stores[-1].root / f"bases-{'-'.join(store.root.name for store in stores[:-1])}.html"
    )


def _same_base(stores: Sequence[RunStore]) -> bool:
    """Return whether the base models of the runs have the same files."""
    return len({store.manifest().model.digest for store in stores}) == 1


def of_two(before: Path, after: Path, form: Format, output: Path | None, *, allow_code: bool = False) -> str:
    """Write the comparison of two runs, the earlier one first, and return the text to print.

    Raises:
        UsageError: both are the same run, or the earlier answers cannot be scored again without `allow_code`.
    """
    old, new = find_run(before), find_run(after)
    if old.root.resolve() == new.root.resolve():
        raise UsageError(f"{before} and {after} are the same run", remedy="Name two runs, the earlier one first.")
    if form is Format.EEE:
        raise UsageError(
            "Every Eval Ever has no form for the comparison of two runs",
            remedy="Name one run: harness report RUN --format eee.",
        )
    decision = gate.compare_runs(old, new, allow_code=allow_code)
    if form is Format.MARKDOWN:
        return _print_or_write(gate_output.markdown(decision), output)
    if form is Format.CSV:
        return _write_tables(csv_tables.comparison_tables(decision), output or new.root / f"against-{old.root.name}")
    return _write_file(
        report.render_comparison(decision, now=now()), output or new.root / f"against-{old.root.name}.html"
    )


def _print_or_write(text: str, output: Path | None) -> str:
    return text.rstrip("\n") if output is None else _write_file(text, output)


def _write_file(text: str, path: Path) -> str:
    if path.is_dir():
        raise UsageError(f"{path} is a directory", remedy="Name a file, such as report.html.")
    write_text(path, text)
    return str(path)


def _write_tables(tables: Mapping[str, str], folder: Path) -> str:
    """Write the tables into a folder, and return their paths, one per line."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", remedy="Name a directory: this format has several files.")
    for name, text in tables.items():
        write_text(folder / name, text)
    return "\n".join(str(folder / name) for name in tables)
