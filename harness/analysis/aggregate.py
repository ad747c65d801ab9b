"""Aggregate the records of a run into `Results`: score the answers and compare each variant with the base model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from harness.analysis import differences, reducers, selection, statistics, timeline
from harness.analysis.contamination import leaks as contamination
from harness.analysis.score_table import ScoreTable, graded, pair, score_table
from harness.core.answers import Answer
from harness.core.costs import comparable, mean, pool
from harness.core.formats import RESULTS_FORMAT
from harness.core.measurement import Phase, PhaseCost
from harness.core.names import BASE
from harness.core.run import RunManifest, TrialRecord
from harness.core.run_results import Change, Choice, Outcome, Results, Safety, Timeline
from harness.core.scores import Rate, Sample, Score
from harness.core.settings import Settings, Variant
from harness.core.suite import Case, Leak, LeakLabel, Role, Split, Suite
from harness.core.training_outcome import Status

MEANINGLESS = "The weights are random, so answers mean nothing. Only memory and training time are meaningful."

Scorer = Callable[[Case, Answer], Score]


def assemble(manifest: RunManifest, records: Sequence[TrialRecord], score: Scorer, finished: str) -> Results:
    """Return all results of a run for the report. `finished` is the time at which the run ended."""
    return confirm(choose(manifest, records, score, finished), records, score, finished)


def choose(manifest: RunManifest, records: Sequence[TrialRecord], score: Scorer, finished: str) -> Results:
    """Score the answers to the main cases, compare each variant with the base model, and choose a variant."""
    suite = manifest.suite
    base = _scored(_base(manifest, records, Split.MAIN), suite, score)
    variants = [_scored(entry, suite, score) for entry in _entries(manifest, records)]
    void = _void_cases(manifest, base)
    found = contamination(suite)
    untrained = _labelled(suite, outcome(suite, Split.MAIN, base, base, void), base.table, found, void)
    outcomes = with_adjusted_p_values(
        [_labelled(suite, outcome(suite, Split.MAIN, own, base, void), own.table, found, void) for own in variants]
    )
    objective = selection.objective_of(suite, untrained)
    tables = objective_tables(suite, objective, {own.entry.name: own.table for own in variants}, void)
    choice = selection.choose(suite, untrained, outcomes, tables)
    if manifest.model.shape_only:
        choice = Choice(None, (MEANINGLESS,), choice.objective)
    return Results(
        format=RESULTS_FORMAT,
        run=manifest,
        base=untrained,
        variants=outcomes,
        void=void,
        samples=(*base.samples, *(sample for own in variants for sample in own.samples)),
        choice=choice,
        finished=finished,
        timelines=tuple(
            timeline for own in variants if (timeline := _timeline(suite, own.entry, score, base, void, objective))
        ),
        leaks=found,
    )


def confirm(results: Results, records: Sequence[TrialRecord], score: Scorer, finished: str) -> Results:
    """Add the confirmation: the chosen variant under fresh seeds on held-out cases. `results` comes from `choose`."""
    manifest, suite = results.run, results.run.suite
    base = _scored(_base(manifest, records, Split.CONFIRM), suite, score)
    void = results.void | _void_cases(manifest, base)
    entry = _confirmation(
        manifest, records, next((v for v in results.variants if v.name == results.choice.variant), None)
    )
    again = _scored(entry, suite, score) if entry else None
    confirmed_base = outcome(suite, Split.CONFIRM, base, base, void) if base.entry.records else None
    confirmed = outcome(suite, Split.CONFIRM, again, base, void) if again else None
    choice = results.choice
    if confirmed and confirmed_base:
        against = selection.refuted(suite, choice.objective, confirmed_base, confirmed)
        choice = replace(choice, refuted=against)
    return replace(
        results,
        void={case.id: void[case.id] for case in suite.cases if case.id in void},
        choice=choice,
        confirmed_base=confirmed_base,
        confirmed=confirmed,
        confirmed_samples=(*base.samples, *(again.samples if again else ())),
        finished=finished,
    )


@dataclass(frozen=True)
class _Entry:
    """The records of one variant (or the base model) on one split of the cases.

    There is one record per seed, with a placeholder for each trial that did not run.
    """

    name: str
    records: tuple[TrialRecord, ...]
    differs: dict[str, Any]

    @property
    def settings(self) -> Settings | None:
        return next((record.settings for record in self.records), None)


@dataclass(frozen=True)
class _ScoredEntry:
    """One variant (or the base model) on one split of the cases, with its scored answers."""

    entry: _Entry
    samples: tuple[Sample, ...]
    table: ScoreTable


def _scored(entry: _Entry, suite: Suite, score: Scorer) -> _ScoredEntry:
    samples = _samples(entry, suite, score)
    return _ScoredEntry(entry, samples, score_table(samples, suite.reducer))


def _base(manifest: RunManifest, records: Sequence[TrialRecord], split: Split) -> _Entry:
    """Return the answers of the base in the first quantisation of the plan. Older records do not name theirs."""
    known = (next(iter(manifest.plan.bases), None), None)
    own = [r for r in records if r.variant == BASE and r.split is split and r.quantization in known]
    return _Entry(BASE, tuple(own), {})


def _entries(manifest: RunManifest, records: Sequence[TrialRecord]) -> list[_Entry]:
    """Return the variants in the plan's order, then the adapters that were trained elsewhere, without a plan."""
    records = [r for r in records if r.variant != BASE and r.split is Split.MAIN]
    known = {key: v for v in manifest.plan.variants for key in (v.id, v.name)}
    found: dict[str, list[TrialRecord]] = {v.name: [] for v in manifest.plan.variants}
    for record in records:
        found.setdefault(known[record.variant].name if record.variant in known else record.variant, []).append(record)
    settings = {name: own[0].settings for name, own in found.items() if own}
    settings |= {v.name: v.settings for v in manifest.plan.variants}
    axes = _axes([s for s in settings.values() if s])
    entries = []
    for name, own in found.items():
        variant = known.get(name)
        full = _complete(variant, manifest.plan.seeds, own) if variant else tuple(own)
        values = settings[name]
        entries.append(_Entry(name, full, {axis: getattr(values, axis) for axis in axes} if values else {}))
    return entries


def _axes(rows: Sequence[Settings]) -> list[str]:
    """Return the names of the settings that differ between `rows`, in the order of the fields of `Settings`."""
    return [f.name for f in fields(Settings) if len({getattr(row, f.name) for row in rows}) > 1]


def _complete(
    variant: Variant, seeds: Sequence[int], records: Sequence[TrialRecord], split: Split = Split.MAIN
) -> tuple[TrialRecord, ...]:
    """Return one record per seed, with a placeholder for each trial that did not run."""
    by_seed = {record.seed: record for record in records}
    order = [*seeds, *(seed for seed in by_seed if seed not in seeds)]
    return tuple(by_seed.get(seed) or _not_run(variant, seed, split) for seed in order)


def _not_run(variant: Variant, seed: int, split: Split) -> TrialRecord:
    return TrialRecord(
        trial="",
        variant=variant.id,
        seed=seed,
        settings=variant.settings,
        split=split,
        status=Status.CANCELLED,
        message="not run: the run ended before this trial",
        training=None,
        costs=(),
        answers={},
    )


def _confirmation(manifest: RunManifest, records: Sequence[TrialRecord], chosen: Outcome | None) -> _Entry | None:
    """Return the trials that confirm the chosen variant. Trials that confirmed another variant are left out."""
    if chosen is None:
        return None
    variant = next((v for v in manifest.plan.variants if v.name == chosen.name), None)
    names = {chosen.name} | ({variant.id} if variant else set())
    own = [r for r in records if r.variant != BASE and r.split is Split.CONFIRM and r.variant in names]
    if not own:
        return None
    full = _complete(variant, manifest.confirm_seeds, own, Split.CONFIRM) if variant else tuple(own)
    return _Entry(chosen.name, full, chosen.differs)


# --- void cases --------------------------------------------------------------------------------------------------


def _void_cases(manifest: RunManifest, base: _ScoredEntry) -> dict[str, str]:
    suite = manifest.suite
    if manifest.model.shape_only:
        return {case.id: MEANINGLESS for case in suite.cases}
    return void_cases(suite, {s.case: s.score for s in reducers.reduced(base.samples, suite.reducer)})


def void_cases(suite: Suite, base_scores: Mapping[str, Score]) -> dict[str, str]:
    """Return the cases that do not count because of the base model's own answer (void cases), with the reasons."""
    sampled = suite.decoding.temperature > 0
    reasons = {case.id: _void(case, base_scores.get(case.id), sampled) for case in suite.cases}
    return {case: reason for case, reason in reasons.items() if reason}


def _void(case: Case, score: Score | None, sampled: bool) -> str:
    if score is None:
        return ""
    if score.value is None:
        return f"the base's answer could not be scored: {score.error}"
    if sampled:
        # Selecting cases by a sampled answer would favour the base model: another sample does worse by chance.
        return ""
    if case.role in (Role.RETAIN, Role.AVOID) and not score.passed:
        return "the base fails it already, so a tuned model cannot lose it"
    if case.role is Role.LEARN and score.passed:
        return "the base passes it already, so passing it shows no learning"
    return ""


# --- outcomes ----------------------------------------------------------------------------------------------------


def outcome(suite: Suite, split: Split, own: _ScoredEntry, base: _ScoredEntry, void: Mapping[str, str]) -> Outcome:
    """Summarise one variant (or the base model) over all its seeds.

    Rates exclude void cases and answers without a score. Costs cover the seeds that succeeded, or all seeds if none
    succeeded.
    """
    entry, records = own.entry, own.entry.records
    fixed, broken = _flips(base.table, own.table, void)
    trainings = tuple(r.training for r in records if r.training)
    finished = [r for r in records if r.status is Status.SUCCEEDED] or list(records)
    return Outcome(
        name=entry.name,
        settings=entry.settings,
        differs=entry.differs,
        statuses=tuple(r.status for r in records),
        seeds=tuple(r.seed for r in records),
        messages=tuple(r.message for r in records),
        rates=_rates(suite, split, own.table, void) if own.samples else {},
        fixed=fixed,
        broken=broken,
        truncated=sum(s.answer.truncated for s in own.samples),
        costs=_costs(finished),
        trainable_parameters=max((t.trainable_parameters for t in trainings), default=0),
        supervised_tokens=_mean([r.training.supervised_tokens for r in finished if r.training]),
        training=trainings,
        reused=any(r.reused for r in records),
        logs=tuple(r.log for r in records),
        shortages=tuple(r.shortage for r in records),
        bases=tuple(r.basis for r in records),
        safety=_safety(suite, own.table, base.table, void),
        elsewhere=entry.settings is None and entry.name != BASE,
        changes={} if entry.name == BASE else _changes(suite, own.table, base.table, void),
    )


def _flips(base: ScoreTable, own: ScoreTable, void: Mapping[str, str]) -> tuple[int, int]:
    """Count the cases that the base model fails and the variant passes, and the reverse, summed over all seeds."""
    shared = [case for case in own.cells if case in base.cells and case not in void]
    verdicts = [(base.majority(case), cell.verdict) for case in shared for cell in own.cells[case].values()]
    return sum(not was and now for was, now in verdicts), sum(was and not now for was, now in verdicts)


def _labelled(
    suite: Suite, of: Outcome, table: ScoreTable, found: Mapping[str, Leak], void: Mapping[str, str]
) -> Outcome:
    """Add pass rates by contamination label, for each role whose counted cases do not all have the same label."""
    by_label: dict[Role, dict[LeakLabel, Rate]] = {}
    for role in Role:
        cases = _counting(suite, (role,), void)
        rates = {label: table.rate([case for case in cases if found[case].label is label]) for label in LeakLabel}
        known = {label: rate for label, rate in rates.items() if rate.total}
        if len(known) > 1:
            by_label[role] = known
    return replace(of, by_label=by_label)


def with_adjusted_p_values(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Adjust the p-values of all variants' changes by Holm's method, separately for each role."""
    found = [dict(each.changes) for each in outcomes]
    for role in Role:
        having = [own for own in found if role in own]
        for own, change in zip(having, differences.adjusted_for_family([own[role] for own in having]), strict=True):
            own[role] = change
    return tuple(replace(each, changes=own) for each, own in zip(outcomes, found, strict=True))


def objective_tables(
    suite: Suite, objective: Role, tables: Mapping[str, ScoreTable], void: Mapping[str, str]
) -> dict[str, ScoreTable]:
    """Return each variant's scores on the cases of the role `objective`, without void cases."""
    cases = _counting(suite, (objective,), void)
    return {name: table.on(cases) for name, table in tables.items()}


def _counting(suite: Suite, roles: Collection[Role], void: Mapping[str, str]) -> list[str]:
    return [case.id for case in suite.cases if case.role in roles and case.id not in void]


def _changes(suite: Suite, own: ScoreTable, base: ScoreTable, void: Mapping[str, str]) -> dict[Role, Change]:
    import numpy as np

    rng, found = np.random.default_rng(0), {}
    for role in Role:
        cases = [case for case in suite.cases if case.role is role and case.id not in void]
        shares, grades = pair(cases, base, own), pair(cases, base, own, measure=graded)
        if shares and grades:
            scores = differences.score_change(grades, rng)
            found[role] = replace(differences.change(role, shares, suite.margin, rng), scores=scores)
    return found


def _safety(suite: Suite, own: ScoreTable, base: ScoreTable, void: Mapping[str, str]) -> Safety | None:
    """Return the loss on those `retain` and `avoid` cases for which the base model has a score.

    Answers of the variant that have no score count as failed.
    """
    before = base.on(_counting(suite, selection.GUARDED, void))
    found = pair(suite.cases, before, own.on(before.cells).failing(before.cells, own.seeds))
    if found is None:
        return None
    shown = statistics.non_inferiority(found.before, found.after, suite.margin / 100, found.groups)
    return Safety(100 * shown.loss + 0.0, 100 * shown.upper, found.before.shape[1], shown.needed)  # no -0.0


def _rates(suite: Suite, split: Split, table: ScoreTable, void: Mapping[str, str]) -> dict[Role, Rate]:
    """Return pass rates by role, in the order of `Role`. A role with only void cases has the rate 0 of 0."""
    cases = suite.of(split)
    asked = {role: [case.id for case in cases if case.role is role] for role in Role}
    return {role: table.rate(id for id in own if id not in void) for role, own in asked.items() if own}


def _costs(records: Sequence[TrialRecord]) -> tuple[PhaseCost, ...]:
    """Return the mean time and the largest memory peaks of each phase."""
    costs = [cost for record in records for cost in _costs_of(record)]
    by_phase = [[c for c in costs if c.phase is phase] for phase in Phase]
    return tuple(pool(comparable(same), mean) for same in by_phase if same)


def _costs_of(record: TrialRecord) -> tuple[PhaseCost, ...]:
    """Return a trial's costs. The cost of a training that failed may be stored only in the record of that training."""
    known = {cost.phase for cost in record.costs}
    training = record.training.cost if record.training else None
    return (*record.costs, training) if training and training.phase not in known else record.costs


def _mean(counts: Sequence[int]) -> int:
    return round(sum(counts) / len(counts)) if counts else 0


# --- timelines ---------------------------------------------------------------------------------------------------


def _timeline(
    suite: Suite, entry: _Entry, score: Scorer, base: _ScoredEntry, void: Mapping[str, str], objective: Role
) -> Timeline | None:
    """Return a variant's timeline over all seeds that answered after every epoch, or None if no seed did."""
    records = [record for record in entry.records if record.timeline and record.status is Status.SUCCEEDED]
    if not records or entry.settings is None:
        return None
    epochs = [
        _epoch(suite, entry, number, [_at(record, number) for record in records], score, void)
        for number in sorted({each.epoch for record in records for each in record.timeline})
    ]
    last = _epoch(suite, entry, entry.settings.epochs, records, score, void)
    return timeline.timeline(suite, entry.name, [*epochs, last], base.table, void, objective)


def _at(record: TrialRecord, epoch: int) -> TrialRecord:
    answers = next((each.answers for each in record.timeline if each.epoch == epoch), {})
    return replace(record, answers=answers)


def _epoch(
    suite: Suite, entry: _Entry, number: float, records: Sequence[TrialRecord], score: Scorer, void: Mapping[str, str]
) -> timeline.Epoch:
    table = _scored(replace(entry, records=tuple(records)), suite, score).table
    return timeline.Epoch(number, table, _rates(suite, Split.MAIN, table, void))


# --- records to samples ------------------------------------------------------------------------------------------


def _samples(entry: _Entry, suite: Suite, score: Scorer) -> tuple[Sample, ...]:
    """Score the answers of successful trials, in the suite's order. Skip cases that are no longer in the suite."""
    samples = []
    for record in entry.records:
        asked = suite.of(record.split) if record.status is Status.SUCCEEDED else ()
        for case in asked:
            for repeat, answer in enumerate(record.answers.get(case.id, ())):
                verdict = score(case, answer)
                samples.append(Sample(entry.name, record.seed, case.id, answer, verdict, repeat))
    return tuple(samples)
