"""Join the costs of one phase over several passes or training seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from harness.core.measurement import Measurement, PhaseCost


def pool(costs: Sequence[PhaseCost], combined: Callable[[Sequence[float]], float]) -> PhaseCost:
    """One cost of several of the same phase: `combined` (`sum`, `mean`) joins time and tokens; peaks are the largest.

    The mean of seconds of different bases or devices says nothing; see `comparable`.
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
    )


def comparable(costs: Sequence[PhaseCost]) -> list[PhaseCost]:
    """The costs whose seconds have the first one's basis and device: trials of another machine are left out."""
    first = costs[0].seconds
    return [cost for cost in costs if (cost.seconds.basis, cost.seconds.device) == (first.basis, first.device)]


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, for `pool`."""
    return sum(values) / len(values)


def largest(figures: Iterable[Measurement | None]) -> Measurement | None:
    """The largest of the figures that are known; None where none is."""
    return max((figure for figure in figures if figure is not None), key=_value, default=None)


def _value(figure: Measurement) -> float:
    return figure.value
