"""Says which passes a run has, and which part of the hardware runs each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.core.engines import Engine
from harness.core.settings import Plan
from harness.core.wording import listed, plural
from harness.runner.composition import Composition
from harness.runner.executors.protocol import Place
from harness.runner.preparation import engine_of


def pass_lines(plan: Plan, rules: Composition, places: Sequence[Place]) -> Iterator[str]:
    """Sentences about the passes of a plan on these places, with the engine that `harness run` uses by default."""
    found = rules.passes(engine_of(Engine.AUTO, plan), plan.trials)
    sizes = sorted({len(some) for some in found}, reverse=True)
    yield f"Passes: {plural(len(found), 'pass', 'passes')} of {listed(sizes)} {'trial' if sizes == [1] else 'trials'}."
    if len(places) == 1:
        return
    dealt = zip(places, rules.deal(found, len(places)), strict=True)
    shares = [f"{place.name}: {plural(len(own), 'pass', 'passes')}" for place, own in dealt]
    yield f"{'; '.join(shares)}."
    if len(found) < len(places) <= len(plan.trials):
        width = -(-len(plan.trials) // len(places))
        yield f"Some have nothing to do. `--width {width}` makes smaller passes, so that all have."
