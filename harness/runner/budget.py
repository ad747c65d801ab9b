"""A time budget: orders trials so that the most informative run first, and says which can still finish in time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.core.errors import UsageError
from harness.core.settings import Plan, Trial, Variant

LEAD = "workshop"
"""The grid row that is trained first, where a grid has one: other rows are compared with it."""
_UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(h|min|m|s)")
_REPORT = (0.03, 8.0, 60.0)
"""Time reserved for the report: a share of the budget, with a minimum and a maximum in seconds."""
_CAUTION = 1.1
"""A trial starts only if this many times its expected time is left."""


def seconds(text: str) -> float:
    """`2h`, `90m`, `1h30m`, `45 min` or `30s` in seconds.

    Raises:
        UsageError: it is not a duration.
    """
    given = text.strip().lower()
    parts = _PART.findall(given)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if re.sub(r"\s", "", given) != "".join(number + unit for number, unit in parts) or total <= 0:
        raise UsageError(f"--budget {text!r} is not a duration", remedy="Write it as 2h, 90m, 1h30m or 45s.")
    return total


def by_information(plan: Plan, cost: Callable[[Variant], float]) -> tuple[Trial, ...]:
    """The plan's trials, the most informative first.

    The row called `workshop` comes first, or else the plan's first row. Then comes, each time, the variant with the
    lowest cost per axis value that no earlier variant had, so that all axes are explored before any is filled in. A
    variant counts only when it has finished under all seeds, so its trials stay together.
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
    """Time left, and expected times of trials, estimated from those that have finished. Time runs from `started`."""

    total: float
    """Seconds."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Predicted time of each trial in any unit; measured times set the scale."""
    clock: Callable[[], float] = time.monotonic
    started: float = 0.0
    spent: bool = False
    """A trial was left out for lack of time."""
    _took: float = 0.0
    _weighed: float = 0.0
    _loading: float = 0.0

    def __post_init__(self) -> None:
        self.started = self.started or self.clock()

    @property
    def until(self) -> float:
        """Time by `clock` at which all training and answering must end; the rest is for the report."""
        share, least, most = _REPORT
        return self.started + self.total - min(max(share * self.total, least), most, self.total / 2)

    def expected(self, trial: str) -> float | None:
        """Seconds that a trial is expected to take; None before any trial has finished."""
        weight = self.weights.get(trial)
        return None if weight is None or not self._weighed else weight * self._took / self._weighed

    def learn(self, trial: str, took: float) -> None:
        """Take into account a trial that finished after `took` seconds."""
        if weight := self.weights.get(trial):
            self._took += took
            self._weighed += weight

    def loaded(self, took: float) -> None:
        """Take into account a worker that loaded its model in `took` seconds."""
        self._loading = max(self._loading, took)

    def allows(self, trial: str, *, loading: bool = False) -> bool:
        """Whether a trial started now would finish in time; with `loading`, a worker must load the model first."""
        needed = (self.expected(trial) or 0.0) + (self._loading if loading else 0.0)
        return self.clock() + _CAUTION * needed < self.until

    def fitting(self, trials: Sequence[str]) -> int:
        """Number of trials, from the first on, that one worker running them all together would finish in time.

        Before any trial has been timed, at most the first trial that has a weight is counted.
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
        """Seconds that these trials are expected to take; None if that is unknown for any of them."""
        each = [self.expected(trial) for trial in trials]
        known = [value for value in each if value is not None]
        return sum(known) if known and len(known) == len(each) else None
