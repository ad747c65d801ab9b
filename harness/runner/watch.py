"""Measures for a time budget how long one worker's trials take, by the clock between the worker's events."""

from __future__ import annotations

from harness.core.job import Event, EventKind
from harness.core.training import Status
from harness.runner.budget import Budget


class Watch:
    """Updates a budget from one worker's events.

    A trial takes from its start, or, where several are trained together, from the end of the one before it.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._since = budget.clock()
        self._started: dict[str, float] = {}

    def see(self, event: Event) -> None:
        now = self.budget.clock()
        if event.kind is EventKind.LOADED:
            self.budget.loaded(now - self._since)
        elif event.kind is EventKind.STARTED:
            self._started.setdefault(event.trial, now)
        elif (
            event.kind is EventKind.FINISHED and event.trial in self.budget.weights and event.status is Status.SUCCEEDED
        ):
            # A trial that fails within a pass is reported before the others answer: the time until then is the pass's.
            self.budget.learn(event.trial, now - max(self._since, self._started.get(event.trial, self._since)))
            self._since = now
