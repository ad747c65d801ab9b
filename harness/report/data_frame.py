"""Results as rows: a pandas DataFrame, samples.jsonl's lines, and the few lines a terminal shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis import divergence
from harness.analysis.contamination import leaks_in_results
from harness.core.answers import Likelihood
from harness.core.results import Change, Outcome, Recommendation, Results, Timeline
from harness.core.scores import Rate, Sample
from harness.core.settings import Settings
from harness.core.suite import Case, LeakLabel, Role, Split
from harness.core.training import Status

if TYPE_CHECKING:
    import pandas as pd

MOST = 4
"""So many names are a list; more are a crowd."""
SETTINGS = tuple(Settings().as_dict())
COLUMNS = (
    "variant", "seed", "case", "repeat", "split", "role", "leak", "passed", "score", "answer", "truncated", "void",
    "perplexity", "reference_perplexity", *SETTINGS,
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A finished run, as `harness.load_run` gives it."""

    results: Results

    def __repr__(self) -> str:
        """A line: a notebook shows it, and everything that was ever answered is no line."""
        run = self.results.run
        size = f"{len(self.results.variants)} variants, {len(run.plan.seeds)} seeds, {len(run.suite.cases)} cases"
        return f"Run({run.suite.name} on {run.model.name}: {size})"

    def frame(self) -> pd.DataFrame:
        """One row per variant (`base` among them), seed, case and repeat; settings are missing in the base's rows.

        `leak` says whether the training rows hold the case's prompt: `seen`, `near-duplicate` or `unseen`.
        `score` is between 0 and 1, or missing where it could not be computed. Rows with `void` count in no rate.
        `perplexity` is of the answer given, `reference_perplexity` of the case's reference, where it has one.
        Rows whose `split` is `confirm` are of the base and the chosen variant only, on held-out cases and under fresh
        seeds: compare variants on those whose `split` is `main`.
        """
        import pandas as pd

        cases = {case.id: case for case in self.results.run.suite.cases}
        found = leaks_in_results(self.results)
        settings = {v.name: _values(v.settings) for v in self.results.variants}
        rows = [
            _row(self.results, cases[sample.case], found[sample.case].label, split, sample)
            + settings.get(sample.variant, _values(None))
            for split, sample in _each(self.results)
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_nullable())

    def timeline(self) -> pd.DataFrame:
        """One row per variant, epoch and role: pass rates over all seeds. Empty unless the run had `--timeline`."""
        import pandas as pd

        rows = [
            (each.variant, epoch.epoch, role.value, rate.passed, rate.total, rate.value)
            for each in self.results.timelines
            for epoch in each.epochs
            for role, rate in epoch.rates.items()
        ]
        return pd.DataFrame(rows, columns=["variant", "epoch", "role", "passed", "total", "rate"])


def samples(results: Results) -> Iterator[dict[str, Any]]:
    """The lines of samples.jsonl: lm-evaluation-harness's field names where the idea is the same, then ours."""
    numbers = {case.id: number for number, case in enumerate(results.run.suite.cases)}
    found = leaks_in_results(results)
    for split, sample in _each(results):
        case = results.run.suite.cases[numbers[sample.case]]
        yield {
            "doc_id": numbers[case.id],
            "doc": {"id": case.id, "messages": [asdict(m) for m in case.messages], "description": case.description},
            "target": case.reference,
            "arguments": [[asdict(m) for m in case.messages], asdict(results.run.suite.decoding)],
            "resps": [[sample.answer.text]],
            "filtered_resps": [sample.answer.text],
            "variant": sample.variant,
            "seed": sample.seed,
            "case": case.id,
            "repeat": sample.repeat,
            "split": split.value,
            "role": case.role.value,
            "leak": found[case.id].label.value,
            "leak_line": found[case.id].line,
            "passed": sample.score.passed,
            "score": sample.score.value,
            "error": sample.score.error,
            "checks": [asdict(check) for check in sample.score.checks],
            "tokens": sample.answer.tokens,
            "truncated": sample.answer.truncated,
            "perplexity": _perplexity(sample.answer.likelihood),
            "reference_perplexity": _perplexity(sample.answer.reference),
            "void": results.void.get(case.id, ""),
        }


def summary(results: Results, report: str = "") -> str:
    """What a terminal shows when a run has ended: the pick, base against best by role, where the report is."""
    toy = results.run.model.toy
    refuted, waiting = results.choice.refuted, _waiting(results)
    if results.choice.variant is None:
        lines = [
            "No variant to recommend." if not toy else "No best variant in this demonstration.",
            *(f"  {reason}" for reason in results.choice.reasons),
        ]
    else:
        best = next(v for v in results.variants if v.name == results.choice.variant)
        lines = [f"{'Best in this demonstration' if toy else 'Best variant'}: {best.name}"]
        lines += _table(results, best)
        lines += _changes(results.confirmed or best)
        lines += [line for each in results.timelines if each.variant == best.name for line in _epochs(each)]
        lines += ["The confirmation speaks against it:", *(f"  {reason}" for reason in refuted)] if refuted else []
    lines += _unstable(results)
    if waiting:
        lines.append(f"Not finished: {waiting} trials without a result. Run the same command again to continue.")
    if toy:
        lines.append("Toy model: the report shows how to read one. Do not copy these settings to another model.")
    return "\n".join([*lines, f"Report: {report}"] if report else lines)


def advice(found: Recommendation) -> str:
    """A recommendation as a terminal shows it: what, why, what is missing, and what to paste."""
    missing = ["What is missing:", *(f"  {each}" for each in found.missing)] if found.missing else []
    pasted = ["", found.script.rstrip()] if found.script else []
    return "\n".join([found.headline, *(f"  {reason}" for reason in found.reasons), *missing, *pasted])


def overview(results: Results, folder: Path) -> dict[str, Any]:
    """The summary for programs."""
    best = next((v for v in results.variants if v.name == results.choice.variant), None)
    return {
        "run": str(folder),
        "report": str(folder / "report.html"),
        "model": results.run.model.name,
        "toy": results.run.model.toy,
        "best": results.choice.variant,
        "reasons": list(results.choice.reasons),
        "refuted": list(results.choice.refuted),
        "base": _rates(results.base),
        "tuned": _rates(best),
        "by_label": {"base": _labels(results.base), "tuned": _labels(best)},
        "confirmed_base": _rates(results.confirmed_base),
        "confirmed": _rates(results.confirmed),
        "changes": _said(results.confirmed or best),
        "stability": {each.variant: asdict(each) for each in divergence.divergence_rates(results)},
        "epochs": {each.variant: _course(each) for each in results.timelines},
        "statuses": {variant.name: _endings(variant) for variant in results.variants},
    }


def _labels(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {
        str(role): {str(label): asdict(rate) for label, rate in own.items()} for role, own in outcome.by_label.items()
    }


def _course(timeline: Timeline) -> dict[str, Any]:
    milestones = {each.case: {"learned": each.learned, "lost": each.lost} for each in timeline.milestones}
    rates = {
        f"{epoch.epoch:g}": {str(role): rate.value for role, rate in epoch.rates.items()} for epoch in timeline.epochs
    }
    return {"enough": timeline.enough, "rates": rates, "cases": milestones}


def _said(outcome: Outcome | None) -> dict[str, Any] | None:
    """Against the base, of the confirmation where there is one."""
    return {str(role): asdict(change) for role, change in outcome.changes.items()} if outcome else None


def _endings(outcome: Outcome) -> list[str]:
    ends = zip(outcome.statuses, outcome.predicted, strict=True)
    return [f"{status} (predicted)" if predicted else str(status) for status, predicted in ends]


def _rates(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {str(role): {"passed": rate.passed, "total": rate.total} for role, rate in outcome.rates.items()}


def _unstable(results: Results) -> list[str]:
    told = divergence.notable_rates(results)
    return ["Stability:", *(f"  {each.variant}: {each.sentence}" for each in told)] if told else []


def _epochs(timeline: Timeline) -> list[str]:
    """How many epochs were needed, and what came or went late."""
    last = timeline.epochs[-1].epoch
    lost = [f"{each.case} (epoch {each.lost:g})" for each in timeline.milestones if each.lost is not None]
    learned = [each.learned for each in timeline.milestones if each.learned is not None]
    words = []
    if timeline.enough is not None:
        words.append(f"{timeline.enough:g} of {last:g} epochs were enough for the best epoch's quality, but for noise")
    if learned:
        words.append(f"the last of {len(learned)} learned cases was learned in epoch {max(learned):g}")
    if lost:
        more = f" and {len(lost) - MOST} more" if len(lost) > MOST else ""
        words.append(f"lost: {', '.join(lost[:MOST])}{more}")
    return [f"  epochs: {'; '.join(words)}."] if words else []


def _changes(tuned: Outcome) -> list[str]:
    """What each role's difference from the base shows, with the smallest that would have been found."""
    return [f"  {role}: {change.verdict}: {change.reason}{_scores(change)}" for role, change in tuned.changes.items()]


def _scores(change: Change) -> str:
    found = change.scores
    return f" Mean score {found.points:+.1f} points ({found.low:+.1f} to {found.high:+.1f})." if found else ""


def _table(results: Results, best: Outcome) -> list[str]:
    columns = [("base", results.base), ("tuned", best)]
    if results.confirmed and results.confirmed_base:
        columns = [("confirmed base", results.confirmed_base), ("confirmed tuned", results.confirmed), *columns]
    rows = []
    for role in Role:
        if role in results.base.rates:
            rows.append([role, *(_percent(o.rates.get(role)) for _, o in columns)])
            # The confirmation has no rates by label: it has too few cases.
            rows += [
                [f"  {label}", *(_percent(o.by_label.get(role, {}).get(label)) for _, o in columns)]
                for label in results.base.by_label.get(role, {})
            ]
    return [f"  {line}" for line in _drawn([title for title, _ in columns], rows)]


def _drawn(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a plain table: the first column has no title, the others are aligned right."""
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


def _waiting(results: Results) -> str:
    """How many trials were stopped or never begun: `6 of 8`; empty where there are none."""
    statuses = [status for variant in results.variants for status in variant.statuses]
    stopped = statuses.count(Status.CANCELLED)
    return f"{stopped} of {len(statuses)}" if stopped else ""


def _percent(rate: Rate | None) -> str:
    if rate is None or rate.value is None:
        return "-"
    return f"{100 * rate.value:.0f}% ({rate.passed}/{rate.total})"


def _each(results: Results) -> Iterator[tuple[Split, Sample]]:
    for sample in results.samples:
        yield Split.MAIN, sample
    for sample in results.confirmed_samples:
        yield Split.CONFIRM, sample


def _row(results: Results, case: Case, leak: LeakLabel, split: Split, sample: Sample) -> tuple[Any, ...]:
    # A column of strings refuses half of a surrogate pair, which a model can well produce.
    answer = sample.answer.text.encode("utf-8", "backslashreplace").decode()
    first = (sample.variant, sample.seed, case.id, sample.repeat, split.value, case.role.value, leak.value)
    second = (sample.score.passed, sample.score.value, answer, sample.answer.truncated, case.id in results.void)
    return (*first, *second, _perplexity(sample.answer.likelihood), _perplexity(sample.answer.reference))


def _perplexity(found: Likelihood | None) -> float | None:
    return found.perplexity if found and math.isfinite(found.perplexity) else None


def _nullable() -> dict[str, str]:
    """The base has no rank; without these its gap would turn everybody's 16 into 16.0."""
    kinds = {bool: "boolean", int: "Int64"}
    return {name: kinds[type(value)] for name, value in Settings().as_dict().items() if type(value) in kinds}


def _values(settings: Settings | None) -> tuple[Any, ...]:
    """Plain values, one per setting: a frame is for people who never saw our enums."""
    if settings is None:
        return (None,) * len(SETTINGS)
    return tuple(str(v) if isinstance(v, StrEnum) else v for v in settings.as_dict().values())
