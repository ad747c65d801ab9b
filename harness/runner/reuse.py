"""Resumes a run: reuses results of earlier sessions, which are records in the run directory or in the cache."""

from __future__ import annotations

from harness.core.measurement import Basis
from harness.runner.recorder import Recorder
from harness.runner.work_items import WorkItem


def reuse(item: WorkItem, recorder: Recorder) -> None:
    """Take the item's record from the run directory if it is still valid, else make it from the cache if possible."""
    found = recorder.run.record(item.split, item.trial)
    if found and found.status.is_result and found.basis is not Basis.PREDICTED and item.accepts(found):
        item.record = found
        recorder.listener.on_record(found, item.trainings)
    else:
        item.reused = bool(recorder.training(item) or item.known(recorder.cache.answers(item.training)))
        recorder.assemble(item)
