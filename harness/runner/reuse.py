"""Resumes a run: reuses results of earlier sessions, which are records in the run directory or in the cache."""

from __future__ import annotations

from dataclasses import replace

from harness.core.measurement import Basis
from harness.core.run import TrialRecord
from harness.core.training_outcome import Status
from harness.runner.recorder import Recorder
from harness.runner.work_items import WorkItem


def reuse(item: WorkItem, recorder: Recorder) -> None:
    """Take the item's record from the run directory if it is still valid, else make it from the cache if possible."""
    found = recorder.run.record(item.split, item.trial)
    if item.until and found and (seen := _look_in(found, item)):
        item.record = seen
        recorder.listener.on_look(seen, item.trainings)
    elif not item.until and found and _is_valid(found, item):
        item.record = replace(found, looks=item.looks or found.looks)
        if item.record != found:
            recorder.run.write_trial(item.record)
        recorder.listener.on_record(item.record, item.trainings)
    else:
        item.reused = bool(recorder.training(item) or item.known(recorder.cache.answers(item.training)))
        recorder.assemble(item)


def _is_valid(found: TrialRecord, item: WorkItem) -> bool:
    return found.status.is_result and found.basis is not Basis.PREDICTED and item.accepts(found)


def _look_in(found: TrialRecord, item: WorkItem) -> TrialRecord | None:
    """Return the trial's state at a look of a race, if its final record has it."""
    if item.timeline:  # the answers after every epoch are in the cache, or must be given again
        return None
    look = next((each for each in found.looks if each.epoch == item.until and item.matches(each.answers)), None)
    if look:
        costs, answers = look.costs, look.answers
        return replace(found, status=Status.SUCCEEDED, message="", answers=answers, costs=costs, looks=item.looks)
    if found.status not in (Status.DIVERGED, Status.OUT_OF_MEMORY) or found.basis is Basis.PREDICTED:
        return None
    steps, ended = found.training.steps if found.training else (), found.training.id if found.training else item.whole
    same = ended == item.whole and (not steps or steps[-1].epoch <= item.until)
    return replace(found, looks=item.looks) if same else None
