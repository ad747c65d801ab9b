"""The summary of a run that `harness run --json` prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis import divergence, next_trials
from harness.core.run_results import Outcome, Results, Timeline

if TYPE_CHECKING:
    pass


def overview(results: Results, folder: Path) -> dict[str, Any]:
    """Return the summary of a run in `folder`, ready to be written as JSON."""
    best = next((v for v in results.variants if v.name == results.choice.variant), None)
    return {
        "run": str(folder),
        "report": str(folder / "report.html"),
        "model": results.run.model.name,
        "toy": results.run.model.toy,
        "best": results.choice.variant,
        "reasons": list(results.choice.reasons),
        "confirmation": asdict(results.choice.confirmation) if results.choice.confirmation else None,
        "loss": asdict(best.loss) if best and best.loss else None,
        "base": _rates(results.base_of(best)),
        "tuned": _rates(best),
        "by_label": {"base": _labels(results.base_of(best)), "tuned": _labels(best)},
        "confirmed_base": _rates(results.confirmed_base),
        "confirmed": _rates(results.confirmed),
        "changes": _changes(results.confirmed or best),
        "stability": {each.variant: asdict(each) for each in divergence.divergence_rates(results)},
        "epochs": {each.variant: _epochs(each) for each in results.timelines},
        "next": asdict(next_trials.next_steps(results)),
        "statuses": {variant.name: _statuses(variant) for variant in results.variants},
    }


def _labels(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {
        str(role): {str(label): asdict(rate) for label, rate in own.items()} for role, own in outcome.by_label.items()
    }


def _epochs(timeline: Timeline) -> dict[str, Any]:
    milestones = {each.case: {"learned": each.learned, "lost": each.lost} for each in timeline.milestones}
    rates = {
        f"{epoch.epoch:g}": {str(role): rate.value for role, rate in epoch.rates.items()} for epoch in timeline.epochs
    }
    return {"enough": timeline.enough, "rates": rates, "cases": milestones}


def _changes(outcome: Outcome | None) -> dict[str, Any] | None:
    """Return, for each role, how the variant differs from the base model; None if there is no outcome."""
    return {str(role): asdict(change) for role, change in outcome.changes.items()} if outcome else None


def _statuses(outcome: Outcome) -> list[str]:
    ends = zip(outcome.statuses, outcome.predicted, strict=True)
    return [f"{status} (predicted)" if predicted else str(status) for status, predicted in ends]


def _rates(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {str(role): {"passed": rate.passed, "total": rate.total} for role, rate in outcome.rates.items()}
