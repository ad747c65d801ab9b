"""The interface of listeners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.job import Event
from harness.core.run import TrialRecord
from harness.core.run_results import Results
from harness.storage.runs import RunStore


class Listener:
    """Base class of listeners, whose methods do nothing. Override the methods that a listener needs."""

    def on_event(self, event: Event) -> None:
        """Handle an event, such as a training step, a finished trial or a notice for the user."""

    def on_record(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        """Handle the record of a trial after it was stored. `trainings` are the cache keys of the trial's adapters.

        It is also called for a record of an earlier session that this session reuses.
        """

    def on_look(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        """Handle the answers of a trial at a look of a race. The record is not stored, since the trial is not over."""

    def on_verdicts(self) -> None:
        """Handle new replies of a judge or similarities of texts, after they were stored."""

    def on_results(self, store: RunStore, results: Results) -> None:
        """Handle the results of the run, after the files of results and the report were written."""


@dataclass(frozen=True)
class Listeners(Listener):
    """A listener that passes each call on to several listeners, in order."""

    each: tuple[Listener, ...] = ()

    def on_event(self, event: Event) -> None:
        for listener in self.each:
            listener.on_event(event)

    def on_record(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        for listener in self.each:
            listener.on_record(record, trainings)

    def on_look(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        for listener in self.each:
            listener.on_look(record, trainings)

    def on_verdicts(self) -> None:
        for listener in self.each:
            listener.on_verdicts()

    def on_results(self, store: RunStore, results: Results) -> None:
        for listener in self.each:
            listener.on_results(store, results)
