"""Shows trials to listeners under readable names (variant and seed) instead of their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.core.job import Event
from harness.core.names import BASE
from harness.core.rehearsal import rehearsing
from harness.core.run import RunManifest, TrialRecord
from harness.core.run_results import Results
from harness.core.settings import Trial
from harness.runner.listeners.protocol import Listener
from harness.runner.planned_trials import confirmation_trials
from harness.storage.keys import adapter_trial, base_trial, rehearsal_trial
from harness.storage.runs import RunStore


@dataclass(frozen=True)
class ReadableNames(Listener):
    """Passes every call on to `listener`, with the trial's id in events replaced by its name."""

    listener: Listener
    names: Mapping[str, str]

    def on_event(self, event: Event) -> None:
        self.listener.on_event(replace(event, trial=self.names.get(event.trial, event.trial)))

    def on_record(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        self.listener.on_record(record, trainings)

    def on_look(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        self.listener.on_look(record, trainings)

    def on_results(self, store: RunStore, results: Results) -> None:
        self.listener.on_results(store, results)


def trial_names(manifest: RunManifest) -> dict[str, str]:
    """Trial id to a readable name, such as "lr=1e-3, seed 0".

    If the grid has only one seed, the names of its trials do not contain it. Those of confirmation trials always do.
    """
    several = len(manifest.plan.seeds) > 1
    names = {trial.id: _title(manifest, trial, several) for trial in manifest.plan.trials}
    for variant in manifest.plan.variants:
        names |= {
            trial.id: _title(manifest, trial, True) for trial in confirmation_trials(variant, manifest.confirm_seeds)
        }
    names |= {rehearsal_trial(quantization): BASE for quantization in rehearsing(manifest.plan)}
    names |= {base_trial(quantization): name for quantization, name in manifest.plan.bases.items()}
    return names | {adapter_trial(adapter): adapter.name for adapter in manifest.adapters}


def _title(manifest: RunManifest, trial: Trial, seeded: bool) -> str:
    name = next(variant.name for variant in manifest.plan.variants if variant.id == trial.variant)
    return f"{name}, seed {trial.seed}" if seeded else name
