"""Measures how long trials take, from the times between a worker's events, and updates the time budget."""

from __future__ import annotations

from harness.core.job import Event, EventKind
from harness.core.training_outcome import Status
from harness.runner.budget import Budget


class TrialTimer:
    """Updates a budget from the events of one worker.

    The time of a trial begins when the trial starts. Trials of one pass start together, so in a pass the time of a
    trial begins when the previous trial finished.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._since = budget.clock()
        self._started: dict[str, float] = {}

    def observe(self, event: Event) -> None:
        """Update the budget with the loading time or the time of a finished trial."""
        now = self.budget.clock()
        if event.kind is EventKind.LOADED:
            self.budget.loaded(now - self._since)
        elif event.kind is EventKind.STARTED:
            self._started.setdefault(event.trial, now)
        elif (
            event.kind is EventKind.FINISHED and event.trial in self.budget.weights and event.status is Status.SUCCEEDED
        ):
            # A failed trial does not count: in a pass it is reported early, when the time was spent on all its trials.
            self.budget.learn(event.trial, now - max(self._since, self._started.get(event.trial, self._since)))
            self._since = now
