"""The summary of a run, and a recommendation, as printed in a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis import divergence, next_trials, power
from harness.analysis.constant_cases import constant_cases
from harness.analysis.next_trials import NextSteps
from harness.core.run_results import Change, Finding, Outcome, Recommendation, Results, Timeline
from harness.core.scores import Rate
from harness.core.suite import Role
from harness.core.training_outcome import Status
from harness.report import judged
from harness.report.race import race
from harness.report.search import search

if TYPE_CHECKING:
    pass

NOTHING = NextSteps()
MOST = 4
"""Largest number of names that are listed. Further ones are only counted."""


def summary(results: Results, report: str = "") -> str:
    """Return the text printed at the end of a run: the best variant, pass rates by role, and the path of the report."""
    toy = results.run.model.toy
    unfinished, few = _unfinished(results), power.too_few_passes(results)
    if results.choice.variant is None:
        lines = [
            "No variant can be recommended." if not toy else "No best variant in this demonstration.",
            *(f"  {reason}" for reason in (few, *results.choice.reasons) if reason),
        ]
    else:
        best = next(v for v in results.variants if v.name == results.choice.variant)
        lines = [f"{'Best in this demonstration' if toy else 'Best variant'}: {best.name}"]
        lines += _table(results, best)
        lines += _changes(results.confirmed or best, "held-out cases" if results.confirmed else "the cases")
        lines += [line for each in results.timelines if each.variant == best.name for line in _epochs(each)]
        lines += _confirmation(results)
    lines += _unstable(results)
    lines += filter(None, [race(results), search(results)])
    lines += filter(None, [constant_cases(results).sentence])
    lines += judged.sentences(results.judging) if results.judging else []
    lines += next_steps(next_trials.next_steps(results), f"harness next {_run(report)}")
    if unfinished:
        lines.append(f"Not finished: {unfinished} trials without a result. Run the same command again to continue.")
    if toy:
        lines.append("Toy model: it only shows how to read a report. Do not copy these settings to another model.")
    elif note := results.run.model.note:
        lines.append(note)
    return "\n".join([*lines, f"Report: {report}"] if report else lines)


def advice(found: Recommendation, steps: NextSteps = NOTHING, command: str = "") -> str:
    """Return a recommendation as text: the variant, the reasons, what is missing, what to try next, and code to copy.

    `command` writes the next trials as a grid.
    """
    missing = ["What is missing:", *(f"  {each}" for each in found.missing)] if found.missing else []
    pasted = ["", found.script.rstrip()] if found.script else []
    return "\n".join(
        [found.headline, *(f"  {reason}" for reason in found.reasons), *missing, *next_steps(steps, command), *pasted]
    )


def next_steps(steps: NextSteps, command: str = "") -> list[str]:
    """Return the lines that say what to try next; none if there is nothing. `command` writes the trials as a grid."""
    lines = [steps.nothing.reason] if steps.nothing else []
    lines += [f"Run: {steps.nothing.command}"] if steps.nothing and steps.nothing.command else []
    lines += [f"{trial.name}: {trial.reason}" for trial in steps.trials]
    lines += [f"In the suite: {sentence}" for sentence in steps.suite]
    if not lines:
        return []
    written = f" (`{command}` writes the trials as a grid)" if command and steps.trials else ""
    return [f"What to try next{written}:", *(f"  {line}" for line in lines)]


def _run(report: str) -> str:
    """Return the directory of the run whose report this is, for a command."""
    return shlex.quote(str(Path(report).parent)) if report else "RUN"


def _confirmation(results: Results) -> list[str]:
    """Return the verdict of the confirmation in one of three words, with its reasons."""
    found = results.choice.confirmation
    if found is None:
        return [f"{Finding.NOT_CONFIRMED.value.capitalize()}: no fresh seeds and held-out cases have tested it."]
    return [f"{found.finding.value.capitalize()}:", *(f"  {reason}" for reason in found.reasons)]


def _unstable(results: Results) -> list[str]:
    told = divergence.notable_rates(results)
    return ["Stability:", *(f"  {each.variant}: {each.sentence}" for each in told)] if told else []


def _epochs(timeline: Timeline) -> list[str]:
    """Write how many epochs were enough, when the last case was learned, and which cases were lost."""
    last = timeline.epochs[-1].epoch
    lost = [f"{each.case} (epoch {each.lost:g})" for each in timeline.milestones if each.lost is not None]
    learned = [each.learned for each in timeline.milestones if each.learned is not None]
    words = []
    if timeline.enough is not None:
        words.append(
            f"{timeline.enough:g} of {last:g} epochs were enough to reach the best epoch's quality within the noise"
        )
    if learned:
        words.append(f"the last of {len(learned)} learned cases was learned in epoch {max(learned):g}")
    if lost:
        more = f" and {len(lost) - MOST} more" if len(lost) > MOST else ""
        words.append(f"lost: {', '.join(lost[:MOST])}{more}")
    return [f"  epochs: {'; '.join(words)}."] if words else []


def _changes(tuned: Outcome, which: str) -> list[str]:
    """Return one line per role: the difference from the base model and its interval, below a line on the measure."""
    lines = [
        f"    {role}: {change.verdict}: {change.reason}{_scores(change)}" for role, change in tuned.changes.items()
    ]
    measure = (
        f"Change of the pass rate on {which}, in points of all cases (a loss is in points of what the base passes):"
    )
    return [f"  {measure}", *lines] if lines else []


def _scores(change: Change) -> str:
    found = change.scores
    return f" Mean score {found.points:+.1f} points ({found.low:+.1f} to {found.high:+.1f})." if found else ""


def _table(results: Results, best: Outcome) -> list[str]:
    base = results.base_of(best)
    columns = [(base.name, base), ("tuned", best)]
    if results.confirmed and results.confirmed_base:
        late = (f"confirmed {results.confirmed_base.name}", results.confirmed_base)
        columns = [late, ("confirmed tuned", results.confirmed), *columns]
    rows = []
    for role in Role:
        if role in base.rates:
            rows.append([role, *(_percent(o.rates.get(role)) for _, o in columns)])
            # The confirmation has no rates by label, because it has too few cases.
            rows += [
                [f"  {label}", *(_percent(o.by_label.get(role, {}).get(label)) for _, o in columns)]
                for label in base.by_label.get(role, {})
            ]
    return [f"  {line}" for line in _table_lines([title for title, _ in columns], rows)]


def _table_lines(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table. The first column has no title; the others are aligned right."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    console = Console(width=200, color_system=None, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _unfinished(results: Results) -> str:
    """Return how many trials have no result, such as `6 of 8`; empty if all have one."""
    statuses = [status for variant in results.variants for status in variant.statuses]
    stopped = statuses.count(Status.CANCELLED)
    return f"{stopped} of {len(statuses)}" if stopped else ""


def _percent(rate: Rate | None) -> str:
    if rate is None or rate.value is None:
        return "-"
    return f"{100 * rate.value:.0f}% ({rate.passed}/{rate.total})"
