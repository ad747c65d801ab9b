"""Choose the trials of a plan to run: leave out those predicted not to fit, and order them where time is limited."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.core.device_profiles import Profile
from harness.core.errors import ModelError
from harness.core.job import Event, EventKind
from harness.core.run import RunManifest, TrialRecord
from harness.core.settings import Plan, Trial, Variant
from harness.core.suite import Split
from harness.core.units import DeviceKind
from harness.core.wording import duration
from harness.hardware.estimate import predictions
from harness.runner.budget import Budget, by_information
from harness.storage.cache import Cache


def weights(manifest: RunManifest, trials: Sequence[Trial]) -> dict[str, float]:
    """Relative cost of each trial: its predicted seconds, or its epochs for a model that cannot be predicted."""
    try:
        return predictions.relative_costs(predictions.resolved_workload(manifest.model, manifest.suite), trials)
    except ModelError:  # of an architecture that is not predicted
        return {trial.id: trial.settings.epochs for trial in trials}


def ordered(plan: Plan, limit: Budget | None) -> Sequence[Trial]:
    """The plan's trials in the grid's order; under a time limit, the most informative ones first."""
    if limit is None:
        return plan.trials
    cost = {trial.variant: limit.weights[trial.id] for trial in plan.trials}
    return by_information(plan, lambda variant: cost[variant.id])


def hopeless(manifest: RunManifest, profile: Profile, cache: Cache, notify: Callable[[Event], None]) -> dict[str, str]:
    """Trials to leave out, each with its reason. Without a prediction a notice says so and none is left out."""
    place = predictions.target_gpu(profile, cache) if manifest.provenance.machine.kind is DeviceKind.CUDA else None
    try:
        if place is not None:
            return predictions.predicted_oom(
                predictions.resolved_workload(manifest.model, manifest.suite), manifest.plan.trials, place
            )
        why = "memory is predicted for GPUs, and this run has none"
    except ModelError as error:
        why = error.message
    notify(Event(EventKind.NOTICED, message=f"--skip-hopeless leaves nothing out: {why}"))
    return {}


def left(limit: Budget, manifest: RunManifest, records: Sequence[TrialRecord], chosen: Variant | None) -> str:
    """Say which trials the budget left undone."""
    done = {record.trial for record in records if record.split is Split.MAIN}
    waiting = [trial.id for trial in manifest.plan.trials if trial.id not in done]
    takes = limit.left(waiting)
    about = f", about {duration(takes)}" if takes else ""
    if waiting:
        what = f"{len(waiting)} of {len(manifest.plan.trials)} trials{about}, and the confirmation of the best"
    else:
        what = f"the confirmation of {chosen.name}" if chosen else "nothing"
    return f"The budget is used up. Left: {what}. Run the same command again to continue."
