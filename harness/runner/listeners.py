"""Listeners: whatever follows a run while it goes on (progress display, copies by `--sync`, an experiment tracker).

A new listener is one module with a subclass of `Listener`, and one entry in the list in `benchmark._listeners`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.job import Event
from harness.core.results import Results
from harness.core.run import TrialRecord
from harness.storage.runs import RunStore


class Listener:
    """Base of all listeners; override what the listener needs."""

    def on_event(self, event: Event) -> None:
        """Handle an event of the run: a step, a finished trial, a notice for the user."""

    def on_record(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        """Handle a trial's stored record; `trainings` are the cache keys of its adapters.

        Records that an earlier session wrote are passed on too.
        """

    def on_results(self, store: RunStore, results: Results) -> None:
        """Handle the results and the page, once both are written."""


@dataclass(frozen=True)
class Listeners(Listener):
    """Passes each call on to every listener, in order."""

    each: tuple[Listener, ...] = ()

    def on_event(self, event: Event) -> None:
        for listener in self.each:
            listener.on_event(event)

    def on_record(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        for listener in self.each:
            listener.on_record(record, trainings)

    def on_results(self, store: RunStore, results: Results) -> None:
        for listener in self.each:
            listener.on_results(store, results)
