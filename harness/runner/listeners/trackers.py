"""The listener of `--track`: gives every trial of a run to an experiment tracker, as one of the tracker's runs.

The trials are sent when the results of the run are known, since only then do pass rates and the verdict exist. A trial
that was sent before is not sent again, so that a resumed run adds only what is new. No tracker is told a key: trackio
writes local files, and wandb takes the key with which its user has logged in, or else writes local files, too.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from harness.analysis.score_table import score_table
from harness.core.errors import UsageError
from harness.core.hashing import digest
from harness.core.job import Event, EventKind
from harness.core.names import BASE
from harness.core.outside_text import one_line
from harness.core.run import TrialRecord
from harness.core.run_results import Outcome, Results
from harness.core.suite import Role, Split
from harness.core.trainer_arguments import plain
from harness.runner.listeners.protocol import Listener
from harness.storage.runs import RunStore

PROJECT = "qlora-harness"
"""The project of the tracker, unless `--track TRACKER:PROJECT` names another."""
_LENGTH = 500
"""Largest number of characters of a message that a tracker is given."""


class TrackerName(StrEnum):
    """The trackers that `--track` knows, each by the name of its package."""

    TRACKIO = "trackio"
    WANDB = "wandb"


@dataclass(frozen=True)
class TrackedTrial:
    """A trial as a tracker gets it."""

    id: str
    """An id that no other trial of any run has."""
    name: str
    group: str
    config: Mapping[str, Any]
    """What was varied, where it ran, how it ended, and the verdict on its variant."""
    steps: tuple[tuple[int, Mapping[str, float]], ...]
    """The metrics of each optimizer step. The last one also has those of the trial's end."""

    @property
    def digest(self) -> str:
        """A digest of everything that the tracker is given."""
        return digest([self.id, self.name, self.group, self.config, self.steps])


class Client(Protocol):
    """An experiment tracker."""

    def send(self, trial: TrackedTrial, page: Path) -> None:
        """Store a trial as a run of the tracker, with the report's page as an artifact."""


@dataclass(frozen=True)
class TrackerListener(Listener):
    """Gives the trials of a run to a tracker. If the tracker fails, the user is told, and the run is complete."""

    tracker: str
    """The tracker and the project, as given with `--track`."""
    connect: Callable[[RunStore], Client]
    notices: Listener
    records: dict[tuple[Split, str], TrialRecord] = field(default_factory=dict)

    def on_record(self, record: TrialRecord, trainings: Sequence[str]) -> None:  # noqa: ARG002 - of no use here
        self.records[record.split, record.trial] = record

    def on_results(self, store: RunStore, results: Results) -> None:
        try:
            self._send(store, results)
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, the run is complete
            message = f"--track {self.tracker} failed; the run is complete, and the same command tries again: "
            words = message + one_line(f"{type(error).__name__}: {error}", _LENGTH)
            self.notices.on_event(Event(EventKind.NOTICED, message=words))

    def _send(self, store: RunStore, results: Results) -> None:
        sent = store.tracked(self.tracker)
        trials = [trial for trial in tracked_trials(results, self.records) if trial.digest not in sent]
        client = self.connect(store)
        for trial in trials:
            client.send(trial, store.report)
            sent |= {trial.digest}
            store.mark_tracked(self.tracker, sent)


def listener(track: str, notices: Listener, *, installed: Callable[[str], object] = find_spec) -> TrackerListener:
    """Return the listener of `--track TRACKER[:PROJECT]`.

    Raises:
        UsageError: there is no such tracker, its package is not installed, or the project has no name.
    """
    name, colon, project = track.partition(":")
    if name not in list(TrackerName):
        known = " or ".join(TrackerName)
        raise UsageError(f"--track: unknown tracker {one_line(name, 60)!r}", remedy=f"Name {known}.")
    if colon and not project.strip():
        raise UsageError("--track: the project has no name", remedy=f"Write --track {name}, or --track {name}:PROJECT.")
    if installed(name) is None:
        raise UsageError(
            f"--track {name}: the package {name} is not installed", remedy=f"Run `pip install {name}`, or omit --track."
        )
    clients: dict[str, Callable[[str, Path], Client]] = {TrackerName.TRACKIO: Trackio, TrackerName.WANDB: Wandb}
    return TrackerListener(track, lambda store: clients[name](project.strip() or PROJECT, store.root), notices)


# --- what is sent ------------------------------------------------------------------------------------------------


def tracked_trials(results: Results, records: Mapping[tuple[Split, str], TrialRecord]) -> Iterator[TrackedTrial]:
    """Return the trials of a run, in the order of their records, and those of the base model among them."""
    names = {variant.id: variant.name for variant in results.run.plan.variants}
    outcomes = {(Split.MAIN, each.name): each for each in (*results.every_base, *results.variants)}
    outcomes |= {(Split.CONFIRM, each.name): each for each in (results.confirmed_base, results.confirmed) if each}
    for record in records.values():
        name = _name(results, record, names)
        outcome = outcomes.get((record.split, name))
        if outcome is not None:
            yield _tracked(results, record, outcome)


def _name(results: Results, record: TrialRecord, names: Mapping[str, str]) -> str:
    """Return the name that samples and outcomes have for a record's variant."""
    if record.settings is None and record.variant == BASE and record.quantization:
        return results.run.plan.bases.get(record.quantization, BASE)
    return names.get(record.variant, record.variant)


def _tracked(results: Results, record: TrialRecord, outcome: Outcome) -> TrackedTrial:
    run, choice, machine = results.run, results.choice, results.run.provenance.machine
    chosen = outcome.name == choice.variant
    config = {
        **({key: plain(value) for key, value in record.settings.as_dict().items()} if record.settings else {}),
        "variant": outcome.name, "seed": record.seed, "split": record.split.value, "trial": record.trial,
        "suite": run.suite.name, "grid": run.plan.grid, "model": run.model.name,
        "engine": str(run.engine.that_trains(record.settings) if record.settings else run.engine),
        "device": machine.device, "compute_dtype": machine.compute_dtype, "basis": record.basis.value,
        "status": record.status.value, "message": one_line(record.message, _LENGTH), "chosen": chosen,
        "confirmation": choice.confirmation.finding.value if chosen and choice.confirmation else None,
        "loss_verdict": outcome.loss.verdict.value if outcome.loss else None,
        "trainable_parameters": record.training.trainable_parameters if record.training else 0,
        "versions": dict(run.provenance.versions), "git_commit": run.provenance.git_commit,
    }  # fmt: skip
    steps = _steps(results, record, outcome)
    last, metrics = steps[-1] if steps else (0, {})
    steps = [*steps[:-1], (last, {**metrics, **_end(results, record, outcome)})]
    where = f"{run.digest[:12]}-{record.split.value}-{record.trial}"
    name = f"{outcome.name}, seed {record.seed}" + (", confirmation" if record.split is Split.CONFIRM else "")
    return TrackedTrial(where, name if record.settings else outcome.name, f"{run.suite.name}-{run.plan.grid}",
                        config, tuple(steps))  # fmt: skip


def _steps(results: Results, record: TrialRecord, outcome: Outcome) -> list[tuple[int, dict[str, float]]]:
    """Return loss, learning rate and gradient norm by step; at the ends of epochs also the variant's pass rates."""
    found: dict[int, dict[str, float]] = {}
    ends: dict[float, int] = {}
    for step in record.training.steps if record.training else ():
        figures = {"loss": step.loss, "learning_rate": step.learning_rate, "grad_norm": step.grad_norm}
        found[step.step] = {name: value for name, value in figures.items() if value is not None}
        found[step.step] |= {"epoch": step.epoch, "supervised_tokens": step.tokens}
        ends[step.epoch] = step.step
    for line in results.timelines if record.split is Split.MAIN else ():
        for epoch in line.epochs if line.variant == outcome.name else ():
            at = next((step for end, step in ends.items() if end >= epoch.epoch - 1e-6), None)
            if at is not None:
                found[at] |= _rates("pass_rate_by_epoch", {r: rate.value for r, rate in epoch.rates.items()})
    return list(found.items())


def _end(results: Results, record: TrialRecord, outcome: Outcome) -> dict[str, float]:
    """Return the metrics at a trial's end: pass rates of this seed by role, time and memory by phase."""
    samples = results.samples if record.split is Split.MAIN else results.confirmed_samples
    own = [sample for sample in samples if (sample.variant, sample.seed) == (outcome.name, record.seed)]
    table = score_table(own, results.run.suite.reducer)
    cases = results.run.suite.of(record.split)
    metrics = _rates("pass_rate", {role: table.rate([c.id for c in cases if c.role is role]).value for role in Role})
    for cost in record.costs:
        phase = cost.phase.value.replace(" ", "_")
        metrics |= {f"seconds/{phase}": cost.seconds.value, f"peak_bytes/{phase}": cost.peak().value}
    return metrics


def _rates(name: str, rates: Mapping[Role, float | None]) -> dict[str, float]:
    return {f"{name}/{role.value}": rate for role, rate in rates.items() if rate is not None}


# --- trackers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trackio:
    """trackio, which stores runs in a local database: in the folder TRACKIO_DIR, or the one of its default."""

    project: str
    folder: Path

    def send(self, trial: TrackedTrial, page: Path) -> None:
        import trackio

        with _silent():
            run = trackio.init(
                project=self.project, name=trial.name, group=trial.group, config={**trial.config, "id": trial.id},
                embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
            try:
                for step, metrics in trial.steps:
                    run.log(dict(metrics), step=step)
                run.log_artifact(page, name="report", type="report")
            finally:
                trackio.finish()


@dataclass(frozen=True)
class Wandb:
    """wandb. Without a key it writes a run that `wandb sync` can send later; it is never asked for one."""

    project: str
    folder: Path

    def send(self, trial: TrackedTrial, page: Path) -> None:
        import wandb

        # Facts about the machine and the command line are left out: they are not needed, and can hold private paths.
        quiet = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        with _silent():
            run = wandb.init(
                project=self.project, id=trial.id, name=trial.name, group=trial.group, config=dict(trial.config),
                dir=str(self.folder), mode=self._mode(), settings=quiet, reinit="finish_previous",
            )  # fmt: skip
            try:
                for step, metrics in trial.steps:
                    run.log(dict(metrics), step=step)
                artifact = wandb.Artifact("report", type="report")
                artifact.add_file(str(page))
                run.log_artifact(artifact)
            finally:
                run.finish()

    def _mode(self) -> str | None:
        """Return None to let wandb decide, or `offline` if it would ask for a key."""
        import wandb

        return None if os.environ.get("WANDB_MODE") or wandb.login(prompt=False) else "offline"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what a tracker prints out of the command's output, which may be JSON."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
