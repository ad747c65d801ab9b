"""The points of the charts of pass rate against cost: their Pareto fronts, and what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.measurement import Basis
from harness.core.training_outcome import Status
from harness.report.pass_rates import Span

BEST, ELIGIBLE, NOT_ELIGIBLE = "Best", "Eligible", "Not eligible"


@dataclass(frozen=True)
class Point:
    """One variant on a chart. `quality` is its pass rate in percent, or None if the variant did not finish."""

    number: int
    name: str
    cost: float | None
    """The value on the cost axis; None if the cost is unknown."""
    shown_cost: str
    quality: float | None
    shown_quality: str
    kind: str
    status: Status
    span: Span | None = None
    basis: Basis = Basis.MEASURED
    device: str = ""
    probes: str = ""
    """The probes from which the cost was estimated; empty if the whole training was measured."""

    @property
    def source(self) -> str:
        """The basis of the cost in words."""
        return (
            f"estimated from {self.probes}" if self.probes and self.basis is not Basis.PREDICTED else self.basis.value
        )

    @property
    def eligible(self) -> bool:
        return self.kind in (BEST, ELIGIBLE)


def front(points: Sequence[Point]) -> list[list[Point]]:
    """Return one Pareto front per basis and device.

    It has the eligible variants with a higher pass rate than every cheaper eligible variant, in order of cost.
    """
    found = []
    for source in dict.fromkeys((p.basis, p.device) for p in points):
        known = [p for p in points if (p.basis, p.device) == source and p.eligible and p.quality is not None and p.cost]
        best, line = -1.0, []
        for point in sorted(known, key=lambda p: (p.cost or 0.0, -(p.quality or 0.0))):
            if point.quality is not None and point.quality > best:
                best = point.quality
                line.append(point)
        found.append(line)
    return [line for line in found if line]


def words(points: Sequence[Point], against: str) -> str:
    """Describe the front, and what half the cost would mean. `against` names the cost: `training time`."""
    parts = (_front_words(points), _half_words(points, against), _stopped_words(points), _probe_words(points))
    return " ".join(filter(None, parts))


def _half_words(points: Sequence[Point], against: str) -> str:
    """Say which eligible variant passes most at half the cost of the chosen one, if there is a chosen one."""
    pick = next((p for p in points if p.kind == BEST and p.cost is not None), None)
    if pick is None or pick.cost is None or pick.quality is None:
        return ""
    alike = [
        p for p in points if p.eligible and p.quality is not None and (p.basis, p.device) == (pick.basis, pick.device)
    ]
    half = [p for p in alike if p.cost is not None and p.cost <= pick.cost / 2]
    most = max(half, key=lambda p: p.quality or 0.0, default=None)
    if most is None:
        return f"No eligible variant needs half the {against} of {pick.name} or less."
    return (
        f"With half the {against} of {pick.name} or less, {most.name} passes most of the eligible variants: "
        f"{most.quality:.0f}% instead of {pick.quality:.0f}%."
    )


def _front_words(points: Sequence[Point]) -> str:
    lines = front(points)
    if not lines:
        return "No variant is eligible, so there is no Pareto front."
    names = [", ".join(p.name for p in line) for line in lines]
    return f"The stepped line is the Pareto front of the eligible variants: {'; '.join(names)}."


def _stopped_words(points: Sequence[Point]) -> str:
    return "Variants that did not finish are drawn below the chart." if any(p.quality is None for p in points) else ""


def _probe_words(points: Sequence[Point]) -> str:
    found = any(p.probes for p in points)
    return "Costs are estimates for training each variant alone, from short probes." if found else ""
