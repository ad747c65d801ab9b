"""Finds the trials to skip because they are predicted to run out of memory, and how trials are composed and ordered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.core.device_profiles import Profile
from harness.core.errors import ModelError
from harness.core.job import Event, EventKind
from harness.core.run import RunManifest, TrialRecord
from harness.core.settings import Plan, Trial, Variant
from harness.core.suite import Split
from harness.core.units import DeviceKind
from harness.core.wording import duration
from harness.hardware.environment import main_memory
from harness.hardware.estimate import predictions
from harness.hardware.estimate.passes import trials_together
from harness.models.architecture import ModelShape, shape_of
from harness.models.foreign_files import read_object
from harness.runner.budget import Budget, by_information
from harness.runner.composition import Composition
from harness.runner.planned_trials import all_trials
from harness.storage.cache import Cache


def weights(manifest: RunManifest, trials: Sequence[Trial]) -> dict[str, float]:
    """Trial id to the relative cost of the trial: predicted seconds, or epochs if nothing can be predicted."""
    try:
        what = predictions.resolved_workload(manifest.model, manifest.suite, manifest.rehearsal)
        return predictions.relative_costs(what, trials)
    except ModelError:  # there is no prediction for this architecture
        return {trial.id: trial.settings.epochs for trial in trials}


def composition(
    manifest: RunManifest, width: int, memory: int, weights: Mapping[str, float] | None = None
) -> Composition:
    """Return the rules by which the trials of a run are put into passes on devices with `memory` bytes.

    `width` is the largest number of trials of a pass, and `weights` are the results of the function `weights`.
    """
    kind, trials = manifest.provenance.machine.kind, all_trials(manifest)
    try:
        shape = shape_of(read_object(Path(manifest.model.path) / "config.json"))
    except ModelError:  # there is no prediction for this architecture
        return Composition(width, {}, weights or {})
    return Composition(width, _fitting(shape, trials, kind, memory), weights or {})


def planned_composition(
    plan: Plan, what: predictions.Workload | None, width: int, target: predictions.TargetGpu | None
) -> Composition:
    """Return the rules of `composition` before a run, if its trials have this workload and run on this GPU."""
    if what is None:
        return Composition(width)
    kind, memory = (DeviceKind.CUDA, target.capacity) if target else (DeviceKind.CPU, main_memory())
    fitting = _fitting(what.shape, plan.trials, kind, memory)
    return Composition(width, fitting, predictions.relative_costs(what, plan.trials))


def _fitting(shape: ModelShape, trials: Sequence[Trial], kind: DeviceKind, memory: int) -> dict[str, int]:
    """Trial id to the number of such trials that fit into memory together."""
    try:
        return {trial.id: trials_together(shape, trial.settings, kind, memory) for trial in trials}
    except ModelError:  # a target module is not one of the modules that predictions know
        return {}


def ordered(plan: Plan, budget: Budget | None) -> Sequence[Trial]:
    """The plan's trials in the grid's order, or with a budget the most informative trials first."""
    if budget is None:
        return plan.trials
    cost = {trial.variant: budget.weights[trial.id] for trial in plan.trials}
    return by_information(plan, lambda variant: cost[variant.id])


def predicted_oom(
    manifest: RunManifest, profile: Profile, cache: Cache, notify: Callable[[Event], None]
) -> dict[str, str]:
    """Trial id to a message, for trials predicted to run out of memory. Calls `notify` if nothing can be predicted."""
    place = predictions.target_gpu(profile, cache) if manifest.provenance.machine.kind is DeviceKind.CUDA else None
    try:
        if place is not None:
            what = predictions.resolved_workload(manifest.model, manifest.suite, manifest.rehearsal)
            return predictions.predicted_oom(what, manifest.plan.trials, place)
        why = "memory is predicted for GPUs, and this run has none"
    except ModelError as error:
        why = error.message
    notify(Event(EventKind.NOTICED, message=f"--skip-hopeless skips no trial: {why}"))
    return {}


def unfinished(budget: Budget, manifest: RunManifest, records: Sequence[TrialRecord], chosen: Variant | None) -> str:
    """A notice that says how many trials, or which confirmation, the time budget left undone."""
    done = {record.trial for record in records if record.split is Split.MAIN}
    waiting = [trial.id for trial in manifest.plan.trials if trial.id not in done]
    seconds = budget.left(waiting)
    about = f", about {duration(seconds)}" if seconds else ""
    if waiting:
        what = f"{len(waiting)} of {len(manifest.plan.trials)} trials{about}, and the confirmation of the best variant"
    else:
        what = f"the confirmation of {chosen.name}" if chosen else "nothing"
    return f"The time budget is used up. Not done: {what}. Run the same command again to continue."
