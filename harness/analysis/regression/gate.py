"""`harness gate`: compare a run with a baseline and decide whether anything became worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.analysis.opinions import known_opinions, scoring_of
from harness.analysis.regression import run_comparison, verdict
from harness.analysis.regression.baseline import BASELINES, baseline_of, find_baseline, results_of
from harness.analysis.regression.run_comparison import scoring_rules
from harness.core.answers import Answer
from harness.core.errors import UsageError
from harness.core.regression import Baseline, Comparison, Decision, Policy
from harness.core.scores import Score
from harness.core.suite import Case, Suite
from harness.core.training_outcome import Status
from harness.scoring import code_of, scorer
from harness.storage.runs import RunStore


def run_gate(
    store: RunStore, baseline: str, *, allow_code: bool = False, policy: Policy | None = None, folder: Path = BASELINES
) -> Decision:
    """Compare a run with a baseline and return the verdict.

    Args:
        store: the run.
        baseline: the name of a baseline in `folder`, a baseline file, or the directory of another run.
        allow_code: whether Python code of the suite may run. It can be needed if assertions changed, because the
            baseline's answers are then scored again.
        policy: thresholds of the verdict. By default, these are the defaults of `Policy`, with the margin of the
            baseline's suite.
        folder: the directory of baselines.

    Raises:
        UsageError: the run lacks a variant of the baseline, or the answers cannot be scored again without `allow_code`.
        StoreError: the run or the baseline cannot be read, or has no finished trial.
    """
    results = results_of(store)
    after = baseline_of(results, store.root.name)
    before = find_baseline(baseline, folder)
    comparison = _compare(before, after, results.run.suite, store, allow_code=allow_code)
    if comparison.missing and not comparison.obstacles:
        remedy = (
            "Run the baseline's grid, or store this run as a baseline with `harness bless`. If the settings of a "
            "variant changed on purpose, give its row in the grid a `name`."
        )
        stopped = [each.name for each in results.variants if Status.STOPPED in each.statuses]
        if set(comparison.missing) & set(stopped):
            remedy = (
                "Some left a race: repeat the command of the run without `--race`, which trains them to their ends."
            )
        names = ", ".join(comparison.missing)
        raise UsageError(f"{store.root} lacks variants of the baseline {before.name}: {names}", remedy=remedy)
    # The earlier suite's margin applies: otherwise an edit of the later suite could loosen the gate.
    return verdict.decide(comparison, policy or Policy(before.suite.margin))


def compare_runs(before: RunStore, after: RunStore, *, allow_code: bool = False) -> Decision:
    """Compare two runs for a report. Unlike `run_gate`, accept runs with different variants and list the differences.

    Raises:
        UsageError: the earlier answers cannot be scored again without `allow_code`.
        StoreError: a run cannot be read, or has no finished trial.
    """
    results = results_of(after)
    old, new = baseline_of(results_of(before), before.root.name), baseline_of(results, after.root.name)
    comparison = _compare(old, new, results.run.suite, after, allow_code=allow_code)
    return verdict.decide(comparison, Policy(new.suite.margin))


def _compare(before: Baseline, after: Baseline, suite: Suite, run: RunStore, *, allow_code: bool = False) -> Comparison:
    """Compare two runs. If assertions changed, the earlier answers are scored again by `suite`, the later run's suite.

    No judge is asked: the verdicts that are stored in the directory of the later `run` are used.

    Raises:
        UsageError: the earlier answers cannot be scored again without `allow_code`.
    """
    score = _scorer(suite, run, {case.id: case for case in before.suite.cases}, allow_code=allow_code)
    return run_comparison.compare(before, after, score)


def _scorer(
    suite: Suite, run: RunStore, old: dict[str, Case], *, allow_code: bool
) -> Callable[[Case, Answer], Score] | None:
    """Return the function that scores answers by the later suite, or None if no case is scored differently now."""
    changed = [case for case in suite.cases if case.id in old and scoring_rules(case) != scoring_rules(old[case.id])]
    if not changed:
        return None
    code = code_of(assertion for case in changed for assertion in case.assertions)
    if code and not allow_code:
        what = f"scoring the baseline's answers with the changed suite runs code: {', '.join(code[:5])}"
        raise UsageError(what, remedy="If you trust it, pass --allow-code.")
    return scorer(scoring_of(suite, known_opinions(suite, run.root), allow_code=allow_code))
