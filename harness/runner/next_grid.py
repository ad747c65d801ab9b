"""Write what to try after a run as a grid, and say which command runs it."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

from harness.analysis.next_trials import MOST_REHEARSAL, NextSteps, next_steps, unfinished
from harness.core.errors import HarnessError, UsageError
from harness.core.run import RunManifest
from harness.report import terminal
from harness.storage.files import is_free, write_text
from harness.storage.runs import RunStore, find_run
from harness.suites.grids.writing import GridRow, grid_text
from harness.suites.rehearsal import usable_prompts

NAME = "next"
_DROPPED = {"--grid": 1, "--output": 1, "--seed": 1, "--fresh": 0, "--json": 0}
"""Options of the run's command that the next command leaves out, with the number of their values."""
UNFINISHED = "Some trials of this run have no result yet. Run the same command again first:"
NO_GRID = "The results speak for no further trial, so no grid was written."
NOTHING = "The results of this run speak for no further trial and for no change of the suite."


def write_next(run: Path, output: Path | None) -> str:
    """Write the next trials of a run as a grid, and return the text to print: trials, reasons, and the next command.

    Without trials, nothing is written. By default, the grid is next to the suite's other grids under a free name; if
    the suite's folder no longer exists, it is in the run's directory.

    Raises:
        StoreError: there is no run, or the grid cannot be written.
        UsageError: `output` is an existing file with another text, or is no name of a grid.
    """
    store = find_run(run)
    results = store.results()
    steps = next_steps(results, _most_rehearsal(results.run))
    if unfinished(results):
        return f"{UNFINISHED}\n{shlex.join(_own_words(results.run)) or 'the command that made it'}"
    if not steps.any:
        return "\n".join([NOTHING, *(() if results.choice.variant else results.choice.reasons)])
    lines = terminal.next_steps(steps)
    if not steps.trials:
        return "\n".join([*lines, NO_GRID])
    text = _text(results.run, steps)
    path = _free(_folder(results.run, store), text) if output is None else _given(output, text)
    write_text(path, text)
    return "\n".join([f"Wrote {path}.", *lines, *_command(results.run, path)])


def _text(run: RunManifest, steps: NextSteps) -> str:
    description = f"What to try after the grid {run.plan.grid} of the suite {run.suite.name} on {run.model.name}."
    return grid_text(description, run.plan.seeds, [GridRow(t.name, t.settings, t.reason) for t in steps.trials])


def _most_rehearsal(run: RunManifest) -> int:
    """Return how many rehearsal rows to propose at most: no more than the suite's own pool has prompts."""
    with suppress(HarnessError, OSError):  # a mistake in the pool is reported when it is used
        return min(MOST_REHEARSAL, len(usable_prompts(run.suite).prompts))
    return MOST_REHEARSAL


# --- the file ----------------------------------------------------------------------------------------------------


def _grids(run: RunManifest) -> Path:
    return Path(run.suite.folder) / "grids"


def _folder(run: RunManifest, store: RunStore) -> Path:
    exists = (Path(run.suite.folder) / run.suite.file).is_file()
    return _grids(run) if exists else store.root


def _free(folder: Path, text: str) -> Path:
    """Return the first of next.yaml, next-2.yaml, ... that does not exist or has this text already."""
    number = 1
    while not is_free(path := folder / f"{NAME}{'' if number == 1 else f'-{number}'}.yaml", text):
        number += 1
    return path


def _given(path: Path, text: str) -> Path:
    if path.suffix != ".yaml":
        raise UsageError(f"{path} is no grid", remedy="Name a file that ends in .yaml, such as next.yaml.")
    if not is_free(path, text):
        raise UsageError(f"{path} exists already", remedy="Name another file with --output, or remove this one.")
    return path


# --- the command -------------------------------------------------------------------------------------------------


def _command(run: RunManifest, path: Path) -> list[str]:
    """Return the lines that say how to run the grid in the file `path`."""
    usual = _grids(run) / path.name
    words = ["harness", "run", run.suite.path, "--grid", path.stem, *_options(run)]
    copied = [] if path.resolve() == usual.resolve() else [f"Copy it to {usual} before you run it."]
    return [*copied, f"Run it: {shlex.join(words)}"]


def _own_words(run: RunManifest) -> list[str]:
    """Return the words of the run's own command, or none if it is no `harness run`, as in a run that was edited."""
    with suppress(ValueError):
        words = shlex.split(run.provenance.command)
        return words if words[:2] == ["harness", "run"] else []
    return []


def _options(run: RunManifest) -> list[str]:
    """Return the options of the run's own command that also apply to the next run, such as its model."""
    words = _own_words(run)
    if not words:
        return [] if run.model.toy else ["--model", run.model.name]
    suite = (Path(run.suite.folder), Path(run.suite.folder) / run.suite.file)
    rest = words[2:] if words[2:3] and words[2].startswith("-") else words[3:]
    kept = []
    while rest:
        word = rest.pop(0)
        name, _, value = word.partition("=")
        if name in _DROPPED:
            del rest[: 0 if value else _DROPPED[name]]
        elif Path(word) not in suite:
            kept.append(word)
    return kept
