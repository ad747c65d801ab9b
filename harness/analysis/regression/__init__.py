"""Blesses runs as baselines and holds runs against them: reads both sides, pairs them, asks the gate."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from harness.analysis.regression import gate
from harness.analysis.regression.baseline import reduced
from harness.analysis.regression.run_comparison import judgement_of, pair
from harness.core.answers import Answer
from harness.core.errors import StoreError, UsageError
from harness.core.names import BASE
from harness.core.regression import Baseline, Comparison, Decision, Policy
from harness.core.results import Results
from harness.core.scores import Score
from harness.core.suite import Case, Suite
from harness.core.training import Status
from harness.scoring import Scoring, code_of, scorer
from harness.storage.baselines import read_baseline, write_baseline
from harness.storage.runs import RunStore, find_run

BASELINES = Path("reports/baselines")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def bless(store: RunStore, name: str | None, folder: Path = BASELINES) -> Path:
    """Keep what a run found as a baseline, by default under the run's own name; where it is.

    Raises:
        UsageError: the name is not one, or trials of the run have no result.
        StoreError: the run has no results, or the place cannot be written.
    """
    results = _results(store)
    waiting = [
        f"{row.name}, seed {seed}: {status}"
        for row in results.variants
        for seed, status in zip(row.seeds, row.statuses, strict=True)
        if not status.is_result
    ]
    if waiting:
        remedy = "Run the same `harness run` again: it does what is missing."
        raise UsageError(f"{len(waiting)} trials have no result, among them {waiting[0]}", remedy=remedy)
    chosen = name or _own_name(results)
    if not _NAME.fullmatch(chosen):
        remedy = "Use letters, digits, dots, dashes and underscores."
        raise UsageError(f"{chosen!r} cannot be a baseline's name", remedy=remedy)
    path = folder / f"{chosen}.json"
    write_baseline(path, reduced(results, chosen))
    return path


def _own_name(results: Results) -> str:
    run = results.run
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{run.suite.name}-{run.plan.grid}-{run.model.name}").strip("-.") or "run"


def decide(
    store: RunStore, baseline: str, *, allow_code: bool = False, policy: Policy | None = None, folder: Path = BASELINES
) -> Decision:
    """Hold a run against a baseline: one that was blessed, a baseline's file, or another run's directory.

    Raises:
        UsageError: a variant of the baseline is not in the run, or judging again would run code that is not allowed.
        StoreError: a side cannot be read, or has no finished trial.
    """
    results = _results(store)
    after = reduced(results, store.root.name)
    before = find_baseline(baseline, folder)
    comparison = compare(before, after, results.run.suite, allow_code=allow_code)
    if comparison.missing and not comparison.obstacles:
        remedy = (
            "Run the baseline's grid, or bless this run. Only rows with a name of their own in the grid may change "
            "their settings and stay the same variant."
        )
        told = ", ".join(comparison.missing)
        raise UsageError(f"{store.root} lacks what the baseline {before.name} has: {told}", remedy=remedy)
    # The baseline's margin: a later suite that allows more must be blessed before it counts.
    return gate.decide(comparison, policy or Policy(before.suite.margin))


def beside(before: RunStore, after: RunStore, *, allow_code: bool = False) -> Decision:
    """Two runs to be shown: unlike `decide` it refuses nothing, and what only one of them has is named.

    Raises:
        UsageError: judging again would run code that is not allowed.
        StoreError: a side cannot be read, or has no finished trial.
    """
    results = _results(after)
    old, new = reduced(_results(before), before.root.name), reduced(results, after.root.name)
    comparison = compare(old, new, results.run.suite, allow_code=allow_code)
    return gate.decide(comparison, Policy(new.suite.margin))


def compare(before: Baseline, after: Baseline, suite: Suite, *, allow_code: bool = False) -> Comparison:
    """Pair two runs; `suite` is the later one's with its folder, by which earlier answers may have to be judged again.

    Raises:
        UsageError: judging again would run code beside the suite, and that is not allowed.
    """
    return pair(before, after, _scorer(suite, {case.id: case for case in before.suite.cases}, allow_code=allow_code))


def _scorer(suite: Suite, old: dict[str, Case], *, allow_code: bool) -> Callable[[Case, Answer], Score] | None:
    """Return the later suite's scorer; None where no assertion has changed."""
    changed = [case for case in suite.cases if case.id in old and judgement_of(case) != judgement_of(old[case.id])]
    if not changed:
        return None
    code = code_of(assertion for case in changed for assertion in case.assertions)
    if code and not allow_code:
        told = f"judging the baseline's answers by the changed suite runs code: {', '.join(code[:5])}"
        raise UsageError(told, remedy="If you trust it, pass --allow-code.")
    return scorer(Scoring(Path(suite.folder), allow_code))


def find_baseline(name: str, folder: Path = BASELINES) -> Baseline:
    """A blessed one by its name, one in a file, or another run reduced to one.

    Raises:
        StoreError: there is none; those that there are, are named.
    """
    path = Path(name)
    if path.suffix == ".json" and path.name != "results.json":
        return read_baseline(path)
    if (path / "run.json").is_file() or path.name == "results.json":
        store = find_run(path)
        return reduced(_results(store), store.root.name)
    blessed = folder / f"{name}.json"
    if _NAME.fullmatch(name) and blessed.is_file():
        return read_baseline(blessed)
    known = sorted(path.stem for path in folder.glob("*.json"))
    remedy = f"There are: {', '.join(known)}." if known else "Make one with `harness bless RUN`."
    raise StoreError(f"there is no baseline {name!r} in {folder}", remedy=remedy)


def _results(store: RunStore) -> Results:
    """A run's results, if there is anything in them."""
    results = store.results()
    done = [s for row in results.variants for s in row.statuses if s.is_result]
    if not done or Status.SUCCEEDED not in results.base.statuses:
        remedy = "Run the same `harness run` again: it does what is missing."
        what = f"no answers of the {BASE}" if done else "no finished trial"
        raise StoreError(f"the run in {store.root} is empty: it has {what}", remedy=remedy)
    return results
