"""A time budget (`--budget`): puts the most informative trials first, and predicts which can still finish in time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.core.errors import UsageError
from harness.core.settings import Plan, Trial, Variant

LEAD = "workshop"
"""Name of the grid row that runs first, if the grid has a row with this name. The other rows are compared with it."""
_UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(h|min|m|s)")
_REPORT = (0.03, 8.0, 60.0)
"""Time reserved for the report: a share of the budget, with a minimum and a maximum in seconds."""
_SAFETY_FACTOR = 1.1
"""A trial starts only if the time left is at least this multiple of the trial's expected time."""


def seconds(text: str) -> float:
    """Parse a duration such as `2h`, `90m`, `1h30m`, `45 min` or `30s`; returns seconds.

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
    """Order the plan's trials so that the most informative come first.

    The variant named `workshop` comes first, or the plan's first variant if there is none of that name. After it comes
    the variant that brings new values of settings at the lowest cost for each new value, and so on, so that every axis
    is explored early. All seeds of a variant run one after another, since only a variant that has finished under all
    seeds can be compared.
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
    """The time left, and the expected time of each trial, estimated from trials that have finished."""

    total: float
    """The time limit in seconds, counted from `started`."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Trial id to the predicted time of the trial, in any unit. Seconds follow from the times of finished trials."""
    clock: Callable[[], float] = time.monotonic
    started: float = 0.0
    spent: bool = False
    """Whether a trial was skipped or stopped because there was too little time left."""
    _took: float = 0.0
    _weighed: float = 0.0
    _loading: float = 0.0

    def __post_init__(self) -> None:
        self.started = self.started or self.clock()

    @property
    def until(self) -> float:
        """The value of `clock` at which training and answering must end. The rest is reserved for the report."""
        share, least, most = _REPORT
        return self.started + self.total - min(max(share * self.total, least), most, self.total / 2)

    def expected(self, trial: str) -> float | None:
        """Expected seconds of a trial; None if the trial is not in `weights` or no trial has finished yet."""
        weight = self.weights.get(trial)
        return None if weight is None or not self._weighed else weight * self._took / self._weighed

    def learn(self, trial: str, took: float) -> None:
        """Update the expected times with a finished trial that took `took` seconds."""
        if weight := self.weights.get(trial):
            self._took += took
            self._weighed += weight

    def loaded(self, took: float) -> None:
        """Set the expected time for loading a model to `took` seconds, unless an earlier worker needed longer."""
        self._loading = max(self._loading, took)

    def allows(self, trial: str, *, loading: bool = False) -> bool:
        """Whether a trial that starts now is expected to finish in time. `loading`: the model must be loaded first."""
        needed = (self.expected(trial) or 0.0) + (self._loading if loading else 0.0)
        return self.clock() + _SAFETY_FACTOR * needed < self.until

    def fitting(self, trials: Sequence[str]) -> int:
        """How many of `trials`, counted from the first, one worker is expected to finish in time in one pass.

        As long as no trial has finished, all times are unknown, and at most one trial that must be trained is included.
        """
        now, needed, count = self.clock(), self._loading, 0
        for trial in trials:
            if trial in self.weights and not self._weighed and any(before in self.weights for before in trials[:count]):
                break
            needed += self.expected(trial) or 0.0
            if now + _SAFETY_FACTOR * needed >= self.until:
                break
            count += 1
        return count

    def left(self, trials: Sequence[str]) -> float | None:
        """Total expected seconds of these trials; None if the time of any of them is unknown."""
        each = [self.expected(trial) for trial in trials]
        known = [value for value in each if value is not None]
        return sum(known) if known and len(known) == len(each) else None
