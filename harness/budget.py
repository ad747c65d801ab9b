"""A limit of time: in which order trials tell most before it is over, and which of them can still be finished."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.records import Plan, Trial, Variant

LEAD = "workshop"
"""The grid row that is trained first, where a grid has one: the setting that everything else is compared with."""
_UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(h|min|m|s)")
_REPORT = (0.03, 8.0, 60.0)
"""What is kept back for the report: a share of all, but no less and no more than these many seconds."""
_CAUTION = 1.1
"""A trial is begun when this many times its expected time is left."""


def seconds(text: str) -> float:
    """`2h`, `90m`, `1h30m`, `45 min` or `30s` in seconds.

    Raises:
        UsageError: it says no time.
    """
    given = text.strip().lower()
    parts = _PART.findall(given)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if re.sub(r"\s", "", given) != "".join(number + unit for number, unit in parts) or total <= 0:
        raise UsageError(f"--budget {text!r} says no time", remedy="Write it as 2h, 90m, 1h30m or 45s.")
    return total


def by_information(plan: Plan, cost: Callable[[Variant], float]) -> tuple[Trial, ...]:
    """The plan's trials in the order in which whatever is finished tells most.

    The row called `workshop` comes first, or the plan's first; then always the variant that is cheapest for each value
    of an axis that no earlier one had, so that the axes are spread over before any of them is filled in. A variant
    counts only when it has ended under all seeds: these stay together.
    """
    left, seen, ordered = list(plan.variants), set[tuple[str, object]](), list[Variant]()
    while left:
        chosen = left[0] if ordered else next((each for each in left if each.name == LEAD), left[0])
        if ordered:
            chosen = min(left, key=lambda each: cost(each) / (1 + len(_values(each) - seen)))
        left.remove(chosen)
        ordered.append(chosen)
        seen |= _values(chosen)
    places = {variant.id: place for place, variant in enumerate(ordered)}
    return tuple(sorted(plan.trials, key=lambda trial: places[trial.variant]))


def _values(variant: Variant) -> set[tuple[str, object]]:
    return set(variant.settings.as_dict().items())


@dataclass
class Budget:
    """Counts from when it is made. What trials take is learned from those that end."""

    total: float
    """Seconds."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """What each trial is predicted to take, in seconds or in any other unit: measured times set the scale."""
    clock: Callable[[], float] = time.monotonic
    started: float = 0.0
    spent: bool = False
    """Something was left out for want of time."""
    _took: float = 0.0
    _weighed: float = 0.0
    _loading: float = 0.0

    def __post_init__(self) -> None:
        self.started = self.started or self.clock()

    @property
    def until(self) -> float:
        """When all work must be over, by `clock`; the rest is for the report."""
        share, least, most = _REPORT
        return self.started + self.total - min(max(share * self.total, least), most, self.total / 2)

    def expected(self, trial: str) -> float | None:
        """Seconds that a trial will take; None before any has ended."""
        weight = self.weights.get(trial)
        return None if weight is None or not self._weighed else weight * self._took / self._weighed

    def learn(self, trial: str, took: float) -> None:
        """A trial has ended after these many seconds."""
        if weight := self.weights.get(trial):
            self._took += took
            self._weighed += weight

    def loaded(self, took: float) -> None:
        """A worker had its model ready after these many seconds."""
        self._loading = max(self._loading, took)

    def allows(self, trial: str, *, loading: bool = False) -> bool:
        """Whether a trial that is begun now would be finished in time, with the model loaded for it if need be."""
        needed = (self.expected(trial) or 0.0) + (self._loading if loading else 0.0)
        return self.clock() + _CAUTION * needed < self.until

    def fitting(self, trials: Sequence[str]) -> int:
        """How many of these, from the first on, would be finished in time by one worker that ends them all together.

        Until it is known what a trial takes, that is no more than the first that has a weight.
        """
        now, needed, count = self.clock(), self._loading, 0
        for trial in trials:
            if trial in self.weights and not self._weighed and any(before in self.weights for before in trials[:count]):
                break
            needed += self.expected(trial) or 0.0
            if now + _CAUTION * needed >= self.until:
                break
            count += 1
        return count

    def left(self, trials: Sequence[str]) -> float | None:
        """Seconds that these trials will take; None where that is not known."""
        each = [self.expected(trial) for trial in trials]
        known = [value for value in each if value is not None]
        return sum(known) if known and len(known) == len(each) else None
