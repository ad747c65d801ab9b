"""A race (`--race`): the trials of a grid are trained from look to look, and variants leave at each look.

All trials reach a look before any goes on. Who leaves depends on the answers of all trials at that look and on nothing
else, so a race has the same result if it was interrupted, and on any number of GPUs.

With several seeds, all variants are trained under the first one, to the end. The trials of a variant that leaves have
a record with the status STOPPED under the seeds that it was not trained under. With one seed, trials are trained in
parts: their adapters, and the states of their optimizers, wait in the cache. A trial that stopped has a record with the
status STOPPED and its answers at the looks; from these, a resumed race repeats its decisions without any training.

If the time limit ends before all trials have reached a look, nothing is decided there, and the next session continues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.analysis import aggregate, racing
from harness.analysis.racing import Entrant, PlannedLook, Race
from harness.analysis.score_table import ScoreTable
from harness.core.job import Event, EventKind
from harness.core.measurement import Phase, PhaseCost
from harness.core.run import Look, RunManifest, TrialRecord
from harness.core.setting_text import number
from harness.core.settings import Trial
from harness.core.suite import Split
from harness.core.training_outcome import Status
from harness.core.wording import plural
from harness.runner.sweep import Sweep
from harness.runner.work_items import WorkItem, at_look
from harness.storage.cache import state_id

Ask = Callable[[Sequence[TrialRecord]], None]
"""Asks other models about the answers in these records, if the suite's assertions need them."""
_FAILED = (Status.FAILED, Status.TIMED_OUT, Status.CANCELLED)


def run_race(
    sweep: Sweep,
    manifest: RunManifest,
    trials: Sequence[Trial],
    score: aggregate.Scorer,
    purpose: str,
    ask: Ask = lambda _: None,
) -> tuple[TrialRecord, ...]:
    """Run the trials of a grid as a race, and return the records that exist at its end.

    `trials` are in the order in which they start. Without looks, they are trained to their ends. `ask` is called before
    answers are scored at a look, so that other models judge them.
    """
    race = racing.race_of(manifest.plan.variants, len(manifest.plan.seeds))
    if why := cannot_race(manifest, race):
        sweep.listener.on_event(Event(EventKind.NOTICED, message=f"--race has no effect: {why}."))
        return sweep.run_trials(trials, Split.MAIN, purpose, planned=manifest.plan.trials)
    return _Race(sweep, manifest, race, list(trials), score, ask).run(purpose)


def cannot_race(manifest: RunManifest, race: Race) -> str:
    """Say why no variant can leave; empty if some can."""
    if manifest.model.shape_only:
        return "the model's weights are random, so its answers mean nothing"
    if race.entered < 2:
        return "the grid has only one variant"
    return "" if race.looks else "no variant is trained for more than one epoch"


@dataclass
class _Race:
    sweep: Sweep
    manifest: RunManifest
    race: Race
    trials: list[Trial]
    score: aggregate.Scorer
    ask: Ask
    stopped: dict[str, str] = field(default_factory=dict)
    """Variant id to why the variant has left."""
    over: dict[str, TrialRecord] = field(default_factory=dict)
    """The final records of trials."""
    _one_done: bool = False
    """Whether all trials under the first of several seeds are trained to their ends."""

    def run(self, purpose: str) -> tuple[TrialRecord, ...]:
        items = self.sweep.items(self.trials, Split.MAIN)
        untrained = [item for item in items if item.settings is None]
        self._whole = {item.trial: item for item in items if item.settings}
        self._weights = dict(self.sweep.budget.weights) if self.sweep.budget else {}
        for place, look in enumerate(self.race.looks, start=1):
            at = {item.trial: self._part(item, look.epochs.get(item.variant, 0)) for item in self._racing(first=True)}
            first = untrained if place == 1 else []
            self._run([*first, *at.values()], f"{purpose}, up to look {place} of {len(self.race.looks)}")
            if not self._decide(place, look, at, untrained):
                break
            self._one_done = self.race.seeds > 1
        else:
            self._run(self._racing(), f"{purpose}, to the end")
            for item in self._racing():
                if item.record:
                    self._over(item, item.record)
        return tuple(
            record for item in items if (record := item.record if item.settings is None else self.over.get(item.trial))
        )

    def _racing(self, *, first: bool = False) -> list[WorkItem]:
        """The trials that go on, or only those with the first seed, as wholes, in the order in which they start."""
        among = self.manifest.plan.seeds[: 1 if first else None]
        return [item for item in self._whole.values() if item.variant not in self.stopped and item.seed in among]

    def _part(self, item: WorkItem, epoch: int) -> WorkItem:
        """Return a trial up to a look. If it has no further look, it is trained to its end."""
        if not epoch or item.record:
            return item
        return at_look(self.sweep.setup, item, epoch, racing.cases_of(self.manifest.suite))

    def _run(self, items: Sequence[WorkItem], purpose: str) -> None:
        due = {item.trial for item in items if item.seed in self.manifest.plan.seeds[int(self._one_done) :]}
        planned = [trial for trial in self.manifest.plan.trials if trial.id in due]
        if budget := self.sweep.budget:
            budget.weights = self._weights | {
                item.trial: self._weights[item.trial] * _share_of(item) for item in items if item.trial in self._weights
            }
        self.sweep.run_items(items, planned, purpose)

    # --- at a look ------------------------------------------------------------------------------------------------

    def _decide(self, place: int, look: PlannedLook, at: Mapping[str, WorkItem], untrained: Sequence[WorkItem]) -> bool:
        """Let variants leave, and return whether the race goes on."""
        if any(item.record is None for item in (*untrained, *at.values())):
            for item in at.values():
                if not item.until and item.record:
                    self._over(item, item.record)
            return False
        self.ask([item.record for item in (*untrained, *at.values()) if item.record])
        by_variant: dict[str, list[WorkItem]] = {}
        for item in at.values():
            by_variant.setdefault(item.variant, []).append(item)
        bases = {item.quantization: self._table([item]) for item in untrained if item.adapter is None}
        names = {variant.id: variant.name for variant in self.manifest.plan.variants}
        entrants = [
            Entrant(
                names[variant],
                self._table(own),
                bases[own[0].quantization],
                tuple(item.seed for item in own),
                _share_done(own[0]),
                _failure(own),
                more_seeds=self.race.seeds > 1,
            )
            for variant, own in by_variant.items()
        ]
        leaving = racing.leaving(self.manifest.suite, self.race, entrants)
        # Under one seed, a variant that is not at this look has been trained to its end.
        more = by_variant if self.race.seeds > 1 else look.epochs
        gone = {each: leaving[names[each]] for each in by_variant if names[each] in leaving and each in more}
        self._notice(place, {names[each]: why for each, why in gone.items()}, len(by_variant))
        self.stopped |= gone
        for item in at.values():
            self._leave(item, gone[item.variant]) if item.variant in gone else self._go_on(item)
        for item in self._whole.values():
            if item.variant in gone and item.trial not in at:
                after = f"stopped after 1 of {self.race.seeds} seeds: {gone[item.variant]}"
                self._over(item, self.sweep.recorder.stop(item, after))
        if self.sweep.budget:
            self._leaders_first(dict(zip(by_variant, entrants, strict=True)))
        return True

    def _table(self, items: Sequence[WorkItem]) -> ScoreTable:
        records = [item.record for item in items if item.record]
        return aggregate.table_of(self.manifest.suite, records, self.score)

    def _leave(self, item: WorkItem, why: str) -> None:
        """Store the final record of a trial that leaves."""
        record, whole = item.record, self._whole[item.trial]
        assert record is not None
        if not item.until:
            self._over(item, record)
            return
        if record.status is Status.SUCCEEDED:
            epochs = number(whole.settings.epochs) if whole.settings else ""
            message = f"stopped after epoch {item.until} of {epochs}: {why}"
            looks = (*whole.looks, Look(item.until, record.answers, _answering(record)))
            record = replace(record, status=Status.STOPPED, message=message, answers={}, costs=(), looks=looks)
        elif record.training:
            record = replace(record, training=replace(record.training, id=whole.training), looks=whole.looks)
        self._over(item, record)
        self.sweep.cache.forget(state_id(item.training))

    def _go_on(self, item: WorkItem) -> None:
        """Let a trial continue from a look; one that has ended keeps its record."""
        if not item.until or item.record is None:
            return
        whole = self._whole[item.trial]
        if whole.resume:
            self.sweep.cache.forget(state_id(whole.resume))
        looks = (*whole.looks, Look(item.until, item.record.answers, _answering(item.record)))
        self._whole[item.trial] = replace(whole, resume=item.training, looks=looks)

    def _over(self, item: WorkItem, record: TrialRecord) -> None:
        """Note the final record of a trial, and store it unless that was done when its training ended."""
        self.over[item.trial] = record
        if item.until and self.sweep.run.record(item.split, item.trial) != record:
            self.sweep.recorder.store(record, item.trainings)
        elif item.resume:
            self.sweep.cache.forget(state_id(item.resume))

    def _leaders_first(self, entrants: Mapping[str, Entrant]) -> None:
        """With a time limit, let the variants with the most passes go on first, so that they finish in time."""
        rates = {variant: racing.passed(self.manifest.suite, each) for variant, each in entrants.items()}
        order = sorted(self._whole.values(), key=lambda item: -rates.get(item.variant, 0.0))
        self._whole = {item.trial: item for item in order}

    def _notice(self, place: int, gone: Mapping[str, str], of: int) -> None:
        which = f"Look {place} of {len(self.race.looks)}"
        message = f"{which}: {len(gone)} of {plural(of, 'variant')} stop." if gone else f"{which}: no variant stops."
        notify: Callable[[Event], None] = self.sweep.listener.on_event
        notify(Event(EventKind.NOTICED, message=message))
        for name, why in gone.items():
            notify(Event(EventKind.NOTICED, message=f"{name} stops: {why}."))


def _share_done(item: WorkItem) -> float:
    return item.until / item.settings.epochs if item.until and item.settings else 1.0


def _share_of(item: WorkItem) -> float:
    """Return which share of a trial's work this part of it is."""
    before = item.looks[-1].epoch / item.settings.epochs if item.looks and item.settings else 0.0
    return _share_done(item) - before


def _failure(items: Sequence[WorkItem]) -> str:
    """Say how the first training of a variant failed; empty if none did."""
    for item in items:
        if item.record and item.record.status is not Status.SUCCEEDED:
            how = "failed" if item.record.status in _FAILED else item.record.status.value
            return f"seed {item.seed}: {how}: {item.record.message}"
    return ""


def _answering(record: TrialRecord) -> tuple[PhaseCost, ...]:
    return tuple(cost for cost in record.costs if cost.phase is not Phase.TRAIN)
