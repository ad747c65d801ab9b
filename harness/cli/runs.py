"""Run a suite on one base model, or on several one after another, and print what was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harness.cli.output import echo
from harness.cli.progress import Display
from harness.core.errors import UsageError
from harness.core.run_results import Results
from harness.report import json_summary, report_files, terminal
from harness.runner import benchmark
from harness.runner.executors.protocol import Executor
from harness.runner.listeners import trackers
from harness.runner.listeners.protocol import Listener
from harness.runner.request import Request
from harness.storage.runs import RunStore

Show = Callable[[str], None]


def run_models(
    request: Request,
    models: Sequence[str],
    executor: Callable[[Show | None], Executor],
    *,
    track: str | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> list[str]:
    """Run the request on each model, print a summary of each run, and return the lines about failed trials.

    For several models, also write and name the page that compares them.

    Raises:
        UsageError: several models have one directory for their results, or a model is named twice.
    """
    _check(request, models)
    done, failures = [], []
    for model in models:
        own = replace(request, model=model)
        with Display(quiet=quiet) as display:
            listeners: list[Listener] = [display, *([] if track is None else [trackers.listener(track, display)])]
            store, results = benchmark.run(own, executor(display.show if verbose else None), listeners)
        done.append((store, results))
        failures += benchmark.failures(results, store.root)
        if not as_json:
            echo(terminal.summary(results, str(store.report)))
    page = _page([store.root for store, _ in done])
    if as_json:
        echo(json.dumps(_overview(done), indent=1))
    elif page:
        echo(f"Which base: {page}")
    return failures


def _check(request: Request, models: Sequence[str]) -> None:
    if len(set(models)) < len(models):
        raise UsageError("a base model is named twice", remedy="Name each model once.")
    if len(models) > 1 and request.output is not None:
        raise UsageError(
            "several base models cannot share one directory for their results",
            remedy="Leave out --output, or run one model at a time.",
        )


def _page(roots: Sequence[Path]) -> str:
    """Write the page that compares several base models, and return its path; empty for one model."""
    return report_files.of_several(roots, report_files.Format.HTML, None) if len(roots) > 1 else ""


def _overview(done: Sequence[tuple[RunStore, Results]]) -> object:
    """Return the summary of one run, or a list with that of each."""
    found = [json_summary.overview(results, store.root) for store, results in done]
    return found[0] if len(found) == 1 else found
