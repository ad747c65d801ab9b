"""Divergence rates: under how many seeds each variant diverged, and with which model and number of steps."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.run_results import Outcome, Results
from harness.core.training_outcome import Status
from harness.core.wording import plural


@dataclass(frozen=True)
class DivergenceRate:
    """How many of a variant's finished trainings diverged. A training is finished if it diverged or succeeded."""

    variant: str
    seeds: int
    diverged: int
    steps: int
    """Number of optimizer steps of a complete training."""
    sentence: str


def divergence_rates(results: Results) -> tuple[DivergenceRate, ...]:
    """Return the divergence rates in the grid's order. Leave out variants without a finished training."""
    steps = max((len(t.steps) for v in results.variants for t in v.training), default=0)
    return tuple(_rate(results, variant, steps) for variant in results.variants if _ended(variant))


def notable_rates(results: Results) -> tuple[DivergenceRate, ...]:
    """Return the rates to report: all, if the grid names the model it was made for (`about`), else those above 0."""
    found = divergence_rates(results)
    return found if results.run.plan.about else tuple(each for each in found if each.diverged)


def _rate(results: Results, variant: Outcome, steps: int) -> DivergenceRate:
    ended, diverged = _ended(variant), variant.statuses.count(Status.DIVERGED)
    own = max((len(t.steps) for t in variant.training if t.status is Status.SUCCEEDED), default=steps)
    model, about = results.run.model, results.run.plan.about
    name = f"{model.name[:1].upper()}{model.name[1:]} model" if model.toy else model.name
    count = f"{diverged} of {plural(ended, 'seed')}"
    other = f" {about}: not tested." if about and about.lower() not in model.name.lower() else ""
    return DivergenceRate(variant.name, ended, diverged, own, f"{name}, {own} steps: {count} diverged.{other}")


def _ended(variant: Outcome) -> int:
    return sum(status in (Status.SUCCEEDED, Status.DIVERGED) for status in variant.statuses) if variant.training else 0
