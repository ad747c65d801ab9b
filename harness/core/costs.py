"""Combine the costs of one phase over several passes or training seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from harness.core.measurement import Measurement, PhaseCost


def pool(costs: Sequence[PhaseCost], combined: Callable[[Sequence[float]], float]) -> PhaseCost:
    """Combine several costs of the same phase into one.

    Times and tokens are combined by `combined` (`sum` or `mean`); of the memory peaks, the largest is kept. All costs
    should have the same basis and device; use `comparable` to select those that do. A mean of measured and predicted
    times, for example, has no meaning.
    """
    first = costs[0]
    return PhaseCost(
        phase=first.phase,
        seconds=replace(first.seconds, value=combined([cost.seconds.value for cost in costs])),
        tokens=round(combined([cost.tokens for cost in costs])),
        peak_resident=max((cost.peak_resident for cost in costs), key=_value),
        peak_allocated=largest(cost.peak_allocated for cost in costs),
        peak_reserved=largest(cost.peak_reserved for cost in costs),
        peak_device=largest(cost.peak_device for cost in costs),
        left_allocated=largest(cost.left_allocated for cost in costs),
        limit=largest(cost.limit for cost in costs),
        note=next((cost.note for cost in costs if cost.note), ""),
        models=max(cost.models for cost in costs),
        # Seeds that were estimated from the same probe have exactly the same seconds.
        probes=len({cost.seconds.value for cost in costs if cost.probes}),
        probe_steps=max(cost.probe_steps for cost in costs),
    )


def comparable(costs: Sequence[PhaseCost]) -> list[PhaseCost]:
    """Return the costs whose seconds have the same basis and device as those of the first cost."""
    first = costs[0].seconds
    return [cost for cost in costs if (cost.seconds.basis, cost.seconds.device) == (first.basis, first.device)]


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean."""
    return sum(values) / len(values)


def largest(figures: Iterable[Measurement | None]) -> Measurement | None:
    """Return the largest of the figures that are not None, or None if there are none."""
    return max((figure for figure in figures if figure is not None), key=_value, default=None)


def _value(figure: Measurement) -> float:
    return figure.value
