"""How many seeds of each variant ended without numbers, in a sentence that names whom this says nothing about."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.results import Outcome, Results
from harness.core.training import Status


@dataclass(frozen=True)
class DivergenceRate:
    """One variant under all its seeds that came to an end, one way or the other."""

    variant: str
    seeds: int
    diverged: int
    steps: int
    """Of a whole training."""
    sentence: str


def divergence_rates(results: Results) -> tuple[DivergenceRate, ...]:
    """Of the variants that were trained here, in the grid's order; those that no seed finished are left out."""
    steps = max((len(t.steps) for v in results.variants for t in v.training), default=0)
    return tuple(_of(results, variant, steps) for variant in results.variants if _ended(variant))


def notable_rates(results: Results) -> tuple[DivergenceRate, ...]:
    """What a reader should know: all where the grid asks about a model, else the variants of which a seed diverged."""
    found = divergence_rates(results)
    return found if results.run.plan.about else tuple(each for each in found if each.diverged)


def _of(results: Results, variant: Outcome, steps: int) -> DivergenceRate:
    ended, diverged = _ended(variant), variant.statuses.count(Status.DIVERGED)
    own = max((len(t.steps) for t in variant.training if t.status is Status.SUCCEEDED), default=steps)
    model, about = results.run.model, results.run.plan.about
    name = f"{model.name[:1].upper()}{model.name[1:]} model" if model.toy else model.name
    of = f"{diverged} of {ended} seeds" if ended != 1 else f"{'the' if diverged else 'not the'} one seed"
    other = f" {about}: not tested." if about and about.lower() not in model.name.lower() else ""
    return DivergenceRate(variant.name, ended, diverged, own, f"{name}, {own} steps: {of} diverged.{other}")


def _ended(variant: Outcome) -> int:
    return sum(status in (Status.SUCCEEDED, Status.DIVERGED) for status in variant.statuses) if variant.training else 0
