"""The listener of `--sync`: copies each finished trial, and at the end the report, to another folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.errors import StoreError
from harness.core.job import Event, EventKind
from harness.core.measurement import Basis
from harness.core.run import TrialRecord
from harness.core.run_results import Results
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
        if not record.status.is_result or record.basis is Basis.PREDICTED:
            return
        try:
            self.mirror.push(record, trainings)
        except (StoreError, OSError) as error:
            self._notice(f"a trial was not copied by --sync; the next run tries again: {error}")

    def on_results(self, store: RunStore, results: Results) -> None:  # noqa: ARG002 - the mirror knows the run
        try:
            self.mirror.push_pages()
        except (StoreError, OSError) as error:
            self._notice(f"the report was not copied by --sync: {error}")

    def _notice(self, message: str) -> None:
        self.notices.on_event(Event(EventKind.NOTICED, message=message))
