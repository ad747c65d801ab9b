"""Tests that listeners receive the events, records and results of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.core import device_profiles
from harness.core.job import Event, EventKind
from harness.core.names import BASE
from harness.core.run import TrialRecord
from harness.core.run_results import Results
from harness.core.settings import Quantization, Settings, Variant
from harness.core.suite import Split
from harness.runner.benchmark import run
from harness.runner.executors.inline import Inline
from harness.runner.listeners.protocol import Listener, Listeners
from harness.runner.listeners.trial_names import trial_names
from harness.runner.request import Request
from harness.storage.keys import base_trial
from harness.storage.runs import RunStore
from tests.support.fake_workers import A, Workers, nobody, sweep
from tests.support.synthetic_runs import results
from tests.support.trained_run import inside


@dataclass(frozen=True)
class Tracker(Listener):
    """A listener that collects what it receives, as an experiment tracker would send it to its server."""

    name: str
    sent: list[str] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        self.sent.append(f"{self.name}: {event.kind}")

    def on_record(self, record: TrialRecord, trainings: Sequence[str]) -> None:
        self.sent.append(f"{self.name}: {record.trial} {len(trainings)}")

    def on_results(self, store: RunStore, results: Results) -> None:
        self.sent.append(f"{self.name}: {results.run.suite.name} in {store.root.name}")


def test_every_listener_gets_every_call_in_order(tmp_path: Path) -> None:
    """`Listeners` passes each call on to all its listeners, in the order in which they were given."""
    first = Tracker("first")
    both = Listeners((first, Tracker("second", first.sent), Listener()))
    found = results(count=2, failures=False)
    both.on_event(Event(EventKind.LOADED))
    both.on_results(RunStore(tmp_path / "run"), found)
    name = found.run.suite.name
    assert first.sent == ["first: loaded", "second: loaded", f"first: {name} in run", f"second: {name} in run"]


def test_each_record_is_passed_on_once_per_session(tmp_path: Path) -> None:
    """In each session, a listener receives the record of each trial once, whether the record is new or reused."""
    for workers in (Workers(), nobody):
        tracker = Tracker("tracker")
        replace(sweep(tmp_path, workers), listener=tracker).run_trials([A], Split.MAIN, "testing")
        records = [line for line in tracker.sent if line.endswith(" 1")]
        assert records == [f"tracker: {BASE} 1", f"tracker: {A.id} 1"]


def test_a_run_passes_records_and_results_on(trained_run: RunStore) -> None:
    """A listener of `run` receives every record and then the results, even if the run was already finished."""
    tracker = Tracker("tracker")
    with inside(trained_run.root.parents[2]):
        request = Request(suite=Path("small"), profile=device_profiles.CPU, confirm_seeds=0)
        run(request, Inline(nobody), [tracker])
    assert len([line for line in tracker.sent if line.endswith(" 1")]) == len(trained_run.records())
    assert tracker.sent[-1] == f"tracker: small in {trained_run.root.name}"


def test_a_base_is_named_after_its_quantization() -> None:
    """Progress calls the plan's first base `base`, and a base in another quantisation after that quantisation."""
    made = results(count=2, failures=False).run
    none, nf4 = (Variant(each, each, Settings(quantization=each)) for each in (Quantization.NONE, Quantization.NF4))
    names = trial_names(replace(made, plan=replace(made.plan, variants=(none, nf4), trials=())))
    assert names[base_trial(Quantization.NONE)] == BASE
    assert names[base_trial(Quantization.NF4)] == "base quant=nf4"
