"""The listener of `--sync`: copies each finished trial, verdicts of judges, and the report to another folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.core.errors import StoreError
from harness.core.job import Event, EventKind
from harness.core.measurement import Basis
from harness.core.run import TrialRecord
from harness.core.run_results import Results
from harness.core.training_outcome import Status
from harness.runner.listeners.protocol import Listener
from harness.storage.mirror import Mirror
from harness.storage.runs import RunStore


@dataclass(frozen=True)
class SyncListener(Listener):
    """Copies trials and reports to the folder of `--sync`. If a copy fails, the user is told and the run continues."""

    mirror: Mirror
    notices: Listener
    """The listener that is told about failed copies."""

    def on_record(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        if not (record.status.is_result or record.status is Status.STOPPED) or record.basis is Basis.PREDICTED:
            return
        self._push(lambda: self.mirror.push(record, trainings))

    def on_look(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        if record.status.is_result:
            self._push(lambda: self.mirror.push_trainings(trainings, trained=True))

    def on_verdicts(self) -> None:
        self._push(self.mirror.push_verdicts, "verdicts were not copied by --sync; the next run tries again")

    def _push(
        self, copy: Callable[[], None], failed: str = "a trial was not copied by --sync; the next run tries again"
    ) -> None:
        try:
            copy()
        except (StoreError, OSError) as error:
            self._notice(f"{failed}: {error}")

    def on_results(self, store: RunStore, results: Results) -> None:  # noqa: ARG002 - the mirror knows the run
        self.on_verdicts()
        self._push(self.mirror.push_pages, "the report was not copied by --sync")

    def _notice(self, message: str) -> None:
        self.notices.on_event(Event(EventKind.NOTICED, message=message))
